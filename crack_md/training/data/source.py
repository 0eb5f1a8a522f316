"""What a run trains on: chosen frames with the labels that its losses need."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from crack_md.data.dataset import LabelledDataset, LabelledStructure, read_dataset
from crack_md.data.labelling import LabelRequest
from crack_md.data.splits import draw
from crack_md.data.stored import join, store_datasets, take, without_teacher
from crack_md.errors import DataError
from crack_md.models.teachers import load_teacher
from crack_md.neighbors import all_pairs
from crack_md.training.config import DataConfig, OnlineTeacher, TrainConfig
from crack_md.training.data.labels import label, label_once
from crack_md.training.losses.base import Label

PER_ATOM_LABELS: dict[Label, str] = {
    "node_features": "teacher node features",
    "node_energy": "the teacher's energies of single atoms",
    "jacobian": "rows of the teacher's force Jacobian",
}
LABEL_FILE = "teacher_labels.aselmdb"
"""In the run folder: what an online teacher said."""
Structures = Sequence[LabelledStructure]
UNSPLIT_SHARE = 0.05
"""Of the groups of a set without splits that are for validation."""
SAMPLE = 64
"""Frames that speak for all where the teacher is asked at every step."""


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The dataset as a run uses it."""

    dataset: LabelledDataset
    train: Sequence[LabelledStructure]
    validation: Sequence[LabelledStructure]
    sample: Sequence[LabelledStructure] = ()
    """Some training frames with the teacher's labels, where training asks for its own
    at every step: for what must be known before, such as the number of channels."""
    n_left_out: int = 0
    """Frames of all sets that leave_out, largest_force and nearest keep out."""


def read_training_data(
    config: TrainConfig, *, read: Callable[[Path], LabelledDataset] = read_dataset
) -> TrainingData:
    """Return the frames to train and validate on, with their teacher's labels.

    Args:
        config: The run; with ``data.store`` the sets lie in files there.
        read: Reads a labelled set; one that remembers serves many runs.

    Raises:
        DataError: No frames to train on, or labels that a loss needs are missing.
    """
    if config.data.store is not None:
        read = _read_stored(config.data, config.data.store)
    whole = read(config.data.path)
    dataset = dataclasses.replace(
        whole, structures=usable(whole.structures, config.data)
    )
    train = dataset.select("train")
    validation = dataset.select("val")
    left = dataset.n_unsplit
    if left == len(dataset):
        train, validation = _divided(
            dataset.structures, config, elsewhere=config.data.validation
        )
    elif left:
        warnings.warn(
            f"{config.data.path}: {left} structures have no split and are left out, as "
            "others have one; name it train, val or test",
            stacklevel=2,
        )
    if config.data.validation is not None:
        validation = usable(read(config.data.validation).structures, config.data)
    train = _sample(train, config.data.max_frames, config.run.seed)
    validation = _sample(validation, config.data.validation_frames, config.run.seed)
    if not train:
        raise DataError(f"{config.data.path} has no frames with split 'train'")
    n_left_out = len(whole.structures) - len(dataset.structures)
    data = TrainingData(dataset, train, validation, n_left_out=n_left_out)
    data = _with_replay(config, data, read)
    train = data.train
    if config.teacher is not None:
        return _ask_teacher(config, config.teacher, data)
    _check_labels(config, train)
    return data


def _read_stored(data: DataConfig, folder: Path) -> Callable[[Path], LabelledDataset]:
    """Return what reads the sets of a run out of its store, made if need be."""
    named = [data.path, *(replay.path for replay in data.replay), data.validation]
    paths = list(dict.fromkeys(path for path in named if path is not None))
    return store_datasets(paths, folder).__getitem__


def _divided(
    structures: Structures, config: TrainConfig, *, elsewhere: Path | None
) -> tuple[Structures, Structures]:
    """Return training and validation frames of a set without splits, and say so.

    One group in twenty is for validation, one at least; which ones depends on the names
    of the groups alone. Frames of a single group are taken for a trajectory, whose last
    twentieth is least like the others.
    """
    if elsewhere is not None or not structures:
        return structures, ()
    order = sorted({one.group for one in structures}, key=draw)
    if len(order) == 1:
        return _end_apart(structures, config)
    chosen = set(order[: math.ceil(UNSPLIT_SHARE * len(order))])
    apart = np.array([one.group in chosen for one in structures])
    train, validation = (
        take(structures, np.flatnonzero(which)) for which in (~apart, apart)
    )
    warnings.warn(
        f"{config.data.path} has no splits: {len(validation)} of {len(structures)} "
        "structures are for validation",
        stacklevel=3,
    )
    return train, validation


def _end_apart(
    structures: Structures, config: TrainConfig
) -> tuple[Structures, Structures]:
    """Return the frames of one group without its last ones, and these."""
    n_validation = math.ceil(UNSPLIT_SHARE * len(structures))
    if n_validation == len(structures):
        raise DataError(
            f"{config.data.path} has one structure and no splits, so nothing is "
            "left to validate on; add structures, or name a set of data.validation"
        )
    warnings.warn(
        f"{config.data.path} has no splits, and all its structures are one group "
        f"({structures[0].group}): the last {n_validation} of {len(structures)} are "
        "for validation; frames of one trajectory are alike, so errors on them "
        "flatter. Name groups or splits, or data.validation, to measure unseen systems",
        stacklevel=4,
    )
    return structures[:-n_validation], structures[-n_validation:]


def _with_replay(
    config: TrainConfig, data: TrainingData, read: Callable[[Path], LabelledDataset]
) -> TrainingData:
    """Return the data with the training frames of further sets, often as they count."""
    structures, train = data.dataset.structures, data.train
    n_left_out = data.n_left_out
    for replay in config.data.replay:
        every = read(replay.path).structures
        more = usable(every, config.data)
        n_left_out += len(every) - len(more)
        frames = dataclasses.replace(data.dataset, structures=more).select("train")
        if not frames:
            raise DataError(f"{replay.path} has no frames with split 'train'")
        channels, known = (_n_channels(some[0]) for some in (frames, train))
        if config.needs_features and channels != known:
            raise DataError(
                f"{replay.path} has {channels} teacher features per atom, "
                f"{config.data.path} has {known}; label both with one teacher"
            )
        structures = join([structures, more])
        train = join([train, *[frames] * replay.repeats])
    dataset = dataclasses.replace(data.dataset, structures=structures)
    return dataclasses.replace(
        data, dataset=dataset, train=train, n_left_out=n_left_out
    )


def _n_channels(frame: LabelledStructure) -> int:
    if frame.teacher is None or frame.teacher.node_features is None:
        return 0
    return int(frame.teacher.node_features.shape[2])


def _ask_teacher(
    config: TrainConfig, asked: OnlineTeacher, data: TrainingData
) -> TrainingData:
    """Return the data with labels of an online teacher: of all frames, or of some."""
    teacher = load_teacher(
        asked.spec, device=_device(config), all_degrees=config.highest_degree > 0
    )
    origin = {"teacher": teacher.name, "teacher_sha256": teacher.sha256}
    metadata = {**data.dataset.metadata, **origin}
    data = dataclasses.replace(
        data, dataset=dataclasses.replace(data.dataset, metadata=metadata)
    )
    frames, wanted = (
        data.train,
        LabelRequest("all" if config.highest_degree else "invariant"),
    )
    later = []
    if asked.labels == "step":
        frames, later = frames[:: max(len(frames) // SAMPLE, 1)], ["jacobian"]
    elif config.needs("jacobian"):
        wanted = dataclasses.replace(wanted, jacobian_rows=asked.jacobian_rows)
    # one answer shows what is missing, before thousands of others and any file
    _check_labels(config, label(frames[:1], teacher, wanted), later=later)
    if asked.labels == "start" and config.data.store is not None:
        raise DataError(
            "data.store keeps sets that are larger than memory, and teacher.labels "
            "'start' would hold all labels in it; ask at every step (labels: step), or "
            "label the set first with: crack-md label"
        )
    labelled = label_once(
        (*frames, *data.validation), teacher, wanted, config.run.folder / LABEL_FILE
    )
    frames, validation = labelled[: len(frames)], labelled[len(frames) :]
    if asked.labels == "step":
        bare = without_teacher(data.train)
        return dataclasses.replace(
            data, train=bare, validation=validation, sample=frames
        )
    return dataclasses.replace(data, train=frames, validation=validation)


def _device(config: TrainConfig) -> str:
    on_gpu = config.run.accelerator != "cpu" and torch.cuda.is_available()
    return "cuda" if on_gpu else "cpu"


def usable(frames: Structures, data: DataConfig) -> Structures:
    """Return the frames that the configuration lets a run use."""
    banned = [
        {atomic_numbers[symbol] for symbol in entry.split("-")}
        for entry in data.leave_out
    ]
    limit, share = data.largest_force, data.nearest
    if not banned and limit is None and share is None:
        return frames

    def is_usable(one: LabelledStructure) -> bool:
        elements = set(one.atoms.numbers.tolist())
        return (
            not any(numbers <= elements for numbers in banned)
            and (limit is None or _largest_force(one) <= limit)
            and (share is None or nearest_share(one.atoms) >= share)
        )

    return take(frames, [place for place, one in enumerate(frames) if is_usable(one)])


def _largest_force(frame: LabelledStructure) -> float:
    return float(np.linalg.norm(frame.forces, axis=1).max(initial=0.0))


def nearest_share(atoms: Atoms) -> float:
    """Return the smallest distance of two atoms over the sum of their covalent radii.

    Infinite where no two atoms are nearer than twice the largest of the radii.
    """
    pairs = all_pairs(atoms, 2 * float(covalent_radii[atoms.numbers].max()))
    radii = covalent_radii[atoms.numbers]
    shares = pairs.distance / (radii[pairs.sender] + radii[pairs.receiver])
    return float(shares.min(initial=np.inf))


def _sample(frames: Structures, number: int | None, seed: int) -> Structures:
    if number is None or number >= len(frames):
        return frames
    chosen = np.random.default_rng(seed).permutation(len(frames))[:number]
    return take(frames, np.sort(chosen))


def _check_labels(
    config: TrainConfig,
    frames: Sequence[LabelledStructure],
    *,
    later: Container[str] = (),
) -> None:
    if config.data.store is not None:
        frames = frames[:1]  # its columns are the same for all
    path = config.data.path
    advice = "label it with: crack-md label, or use only losses of kind 'task'"
    if config.needs_teacher and any(frame.teacher is None for frame in frames):
        raise DataError(
            f"{path}: frames without teacher labels, which the losses need; {advice}"
        )
    for key, words in PER_ATOM_LABELS.items():
        readers = sorted({one.kind for one in config.losses if key in one.reads})
        if key in later or not readers:
            continue
        if any(getattr(frame.teacher, key) is None for frame in frames):
            raise DataError(
                f"{path}: frames without {words}, which the losses "
                f"{', '.join(readers)} read; label it with a teacher that has them, or "
                "drop these losses"
            )
    wanted = (config.highest_degree + 1) ** 2
    if config.highest_degree and any(_n_coefficients(one) < wanted for one in frames):
        raise DataError(
            f"{path}: the losses compare degrees up to {config.highest_degree}, which "
            "the teacher's features do not hold; label it with all degrees, by a "
            "teacher of the student's architecture"
        )


def _n_coefficients(frame: LabelledStructure) -> int:
    if frame.teacher is None or frame.teacher.node_features is None:
        return 0
    return frame.teacher.node_features.shape[1]
