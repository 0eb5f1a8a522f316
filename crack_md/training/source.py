"""What a run trains on: chosen frames with the labels that its losses need."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from crack_md.data.dataset import LabelledDataset, LabelledStructure, read_dataset
from crack_md.errors import DataError
from crack_md.models.teachers import Teacher, load_teacher
from crack_md.training.config import TrainConfig
from crack_md.training.loss_config import Label

PER_ATOM_LABELS: dict[Label, str] = {
    "node_features": "teacher node features",
    "node_energy": "the teacher's energies of single atoms",
    "jacobian": "rows of the teacher's force Jacobian",
}
LABEL_CHUNK = 16
"""Structures that an online teacher is asked for at a time."""


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The dataset as a run uses it."""

    dataset: LabelledDataset
    train: tuple[LabelledStructure, ...]
    validation: tuple[LabelledStructure, ...]


def read_training_data(
    config: TrainConfig, *, read: Callable[[Path], LabelledDataset] = read_dataset
) -> TrainingData:
    """Return the frames to train and validate on, with their teacher's labels.

    Args:
        config: The run.
        read: Reads a labelled set; one that remembers serves many runs.

    Raises:
        DataError: No frames to train on, or labels that a loss needs are missing.
    """
    dataset = read(config.data.path)
    dataset = dataclasses.replace(
        dataset, structures=without(dataset.structures, config.data.leave_out)
    )
    train = dataset.select("train")
    validation = dataset.select("val")
    if not train and not validation:  # a set without splits: all of it
        train = dataset.structures
    if config.data.validation is not None:
        validation = without(
            read(config.data.validation).structures, config.data.leave_out
        )
    train = _sample(train, config.data.max_frames, config.run.seed)
    validation = _sample(validation, config.data.validation_frames, config.run.seed)
    if not train:
        raise DataError(f"{config.data.path} has no frames with split 'train'")
    if config.teacher is not None:
        teacher = load_teacher(config.teacher.spec)
        train, validation = (label(frames, teacher) for frames in (train, validation))
        told = {"teacher": teacher.name, "teacher_sha256": teacher.sha256}
        dataset = dataclasses.replace(dataset, metadata={**dataset.metadata, **told})
    _check_labels(config, train)
    return TrainingData(dataset, train, validation)


def without(
    frames: Sequence[LabelledStructure], combinations: Sequence[str]
) -> tuple[LabelledStructure, ...]:
    """Return the frames with none of the combinations, such as "Ni" or "Ni-O"."""
    banned = [
        {atomic_numbers[symbol] for symbol in entry.split("-")}
        for entry in combinations
    ]
    return tuple(
        frame
        for frame in frames
        if not any(numbers <= set(frame.atoms.numbers.tolist()) for numbers in banned)
    )


def label(
    frames: Sequence[LabelledStructure], teacher: Teacher
) -> tuple[LabelledStructure, ...]:
    """Return the frames with fresh labels of the teacher."""
    labelled = []
    for start in range(0, len(frames), LABEL_CHUNK):
        chunk = frames[start : start + LABEL_CHUNK]
        answers = teacher.predict([frame.atoms for frame in chunk])
        labelled += [
            dataclasses.replace(frame, teacher=answer)
            for frame, answer in zip(chunk, answers, strict=True)
        ]
    return tuple(labelled)


def _sample(
    frames: tuple[LabelledStructure, ...], number: int | None, seed: int
) -> tuple[LabelledStructure, ...]:
    if number is None or number >= len(frames):
        return frames
    chosen = np.random.default_rng(seed).permutation(len(frames))[:number]
    return tuple(frames[index] for index in np.sort(chosen))


def _check_labels(config: TrainConfig, frames: Sequence[LabelledStructure]) -> None:
    path = config.data.path
    advice = "label it with: crack-md label, or use only losses of kind 'task'"
    if config.needs_teacher and any(frame.teacher is None for frame in frames):
        raise DataError(
            f"{path}: frames without teacher labels, which the losses need; {advice}"
        )
    for label, words in PER_ATOM_LABELS.items():
        readers = sorted({one.kind for one in config.losses if label in one.reads})
        if readers and any(getattr(frame.teacher, label) is None for frame in frames):
            raise DataError(
                f"{path}: frames without {words}, which the losses "
                f"{', '.join(readers)} read; label it with a teacher that has them, or "
                "drop these losses"
            )
