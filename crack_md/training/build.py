"""From a checked configuration to the objects that the trainer receives."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers

from crack_md.data.dataset import LabelledDataset, LabelledStructure, read_dataset
from crack_md.data.normalization import fit_energy_scale
from crack_md.errors import CheckpointError, ConfigError, DataError
from crack_md.models.checkpoint import load_model
from crack_md.models.equiformer_v2 import EquiformerV2, EquiformerV2Config
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.models.teachers import Teacher, load_teacher
from crack_md.neighbors import build_graph
from crack_md.training.config import (
    CrackConfig,
    NodeToNodeConfig,
    StudentConfig,
    TrainConfig,
)
from crack_md.training.frames import Frames
from crack_md.training.losses import (
    CrackLoss,
    EnergyLoss,
    ForceLoss,
    NodeToNodeLoss,
    Ranks,
    WeightedTerm,
)
from crack_md.training.objective import FeatureHead, Objective

LABEL_CHUNK = 16
"""Structures that an online teacher is asked for at a time."""


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The dataset as a run uses it."""

    dataset: LabelledDataset
    train: tuple[LabelledStructure, ...]
    validation: tuple[LabelledStructure, ...]


def read_training_data(config: TrainConfig) -> TrainingData:
    """Return the frames to train and validate on, with their teacher's labels.

    Raises:
        DataError: No frames to train on, or labels that a loss needs are missing.
    """
    dataset = read_dataset(config.data.path)
    dataset = dataclasses.replace(
        dataset, structures=without(dataset.structures, config.data.leave_out)
    )
    train = dataset.select("train")
    validation = dataset.select("val")
    if not train and not validation:  # a set without splits: all of it
        train = dataset.structures
    if config.data.validation is not None:
        validation = without(
            read_dataset(config.data.validation).structures, config.data.leave_out
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


def build_frames(frames: Sequence[LabelledStructure], student: ForceField) -> Frames:
    """Return the frames with graphs of the student's neighbor rule."""
    return Frames(frames, partial(build_graph, rule=student.rule))


def build_student(config: StudentConfig, data: TrainingData) -> ForceField:
    """Return a new student, or one that starts from the weights of another.

    Raises:
        ConfigError: ``init_from`` shares no weights with the architecture, or does not
            know an element of the dataset.
    """
    known = dataclasses.asdict(config.architecture)
    network = EquiformerV2(EquiformerV2Config(**known))
    metadata = ModelMetadata(
        energy_reference=data.dataset.metadata.get("energy_reference", "total"),
        elements=data.dataset.elements,
        gas_references=data.dataset.metadata.get("gas_references", {}),
    )
    if config.init_from is None:
        scale = fit_energy_scale(
            data.train,
            energy_reference=metadata.energy_reference,
            average_atoms=config.architecture.average_atoms,
        )
        return ForceField(network, scale, metadata)
    start = load_model(config.init_from)
    missing = set(metadata.elements) - set(start.metadata.elements)
    if missing:
        raise ConfigError(
            f"student.init_from {config.init_from} was not trained on the elements "
            f"{sorted(missing)} of the dataset; start from another model or from none"
        )
    copy_matching_weights(start.network, network, name=str(config.init_from))
    return ForceField(network, start.scale, metadata)


def copy_matching_weights(
    source: torch.nn.Module, target: torch.nn.Module, *, name: str
) -> None:
    """Copy every tensor that both have with the same shape, e.g. all but a force head.

    Raises:
        ConfigError: Less than half of the target's weights have a match.
    """
    held = source.state_dict()
    own = target.state_dict()
    matching = {
        key: held[key]
        for key, tensor in own.items()
        if key in held and held[key].shape == tensor.shape
    }
    n_matching = sum(tensor.numel() for tensor in matching.values())
    n_all = sum(tensor.numel() for tensor in own.values())
    if 2 * n_matching < n_all:
        raise ConfigError(
            f"student.init_from {name} matches {n_matching} of {n_all} weights; give "
            "student.architecture the sizes of that model"
        )
    target.load_state_dict(matching, strict=False)


def build_objective(
    config: TrainConfig, student: ForceField, train: Frames, *, ranks: Ranks
) -> Objective:
    """Return the student with its losses, and the head P where one is needed."""
    head = None
    if config.needs_features:
        features = train.features
        assert features is not None, "checked by read_training_data"
        mean, std = None, 1.0
        if config.features.normalize:
            mean = features.mean(dim=0)
            std = (features - mean).square().mean().sqrt().item()
        head = FeatureHead(
            student.network.config.sphere_channels,
            features.shape[1],
            mean=mean,
            std=std,
        )
        _start_head(head, config.student.init_from)
    return Objective(
        student,
        build_terms(config, student, train),
        head=head,
        ranks=ranks,
        autocast_dtype=torch.bfloat16 if config.run.precision == "bfloat16" else None,
    )


def _start_head(head: FeatureHead, init_from: Path | None) -> None:
    # a run leaves its head beside its student; fine-tuning goes on with both
    held = None if init_from is None else read_head(None, beside=init_from)
    if held is not None and held.linear.weight.shape == head.linear.weight.shape:
        head.linear.load_state_dict(held.linear.state_dict())


def build_terms(
    config: TrainConfig, student: ForceField, train: Frames
) -> list[WeightedTerm]:
    """Return the loss terms in the order of the file."""
    terms: list[WeightedTerm] = []
    for loss in config.losses:
        if isinstance(loss, CrackConfig):
            term = CrackLoss(**loss.model_dump(exclude={"kind", "weight"}))
            terms.append(WeightedTerm(term, loss.weight))
        elif isinstance(loss, NodeToNodeConfig):
            terms.append(WeightedTerm(NodeToNodeLoss(), loss.weight))
        else:
            sigma = loss.sigma_eV or energy_spread(
                train.structures, student.scale, per_atom=loss.per_atom
            )
            energy = EnergyLoss(loss.kind, sigma, loss.per_atom)
            terms.append(WeightedTerm(energy, loss.energy_weight))
            terms.append(WeightedTerm(ForceLoss(loss.kind, sigma), loss.force_weight))
    return terms


def energy_spread(
    frames: Sequence[LabelledStructure], scale: EnergyScale, *, per_atom: bool
) -> float:
    """Return the standard deviation in eV of energies without element references."""
    references = scale.element_references
    residuals = [
        (frame.energy - sum(references.get(int(z), 0.0) for z in frame.atoms.numbers))
        / (len(frame.atoms) if per_atom else 1)
        for frame in frames
    ]
    spread = float(np.std(residuals))
    return spread if spread > 1e-6 else 1.0  # one frame, or equal ones, has no spread


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
    if config.needs_features and any(
        frame.teacher is None or frame.teacher.node_features is None for frame in frames
    ):
        raise DataError(
            f"{path}: frames without teacher node features, which the losses 'crack' "
            "and 'n2n' need; label it with a teacher that has them, or drop the losses"
        )


def read_head(path: Path | None, *, beside: Path | None = None) -> FeatureHead | None:
    """Return the head P that a run has left, or None where there is none.

    Args:
        path: The file, or None to look beside a model.
        beside: The model whose folder is looked at.

    Raises:
        CheckpointError: The file is damaged or something else.
    """
    if path is None:
        path = None if beside is None else beside.with_name("feature_head.pt")
        if path is None or not path.exists():
            return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        n_teacher, n_student = state["linear.weight"].shape
        head = FeatureHead(n_student, n_teacher)
        head.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(
            f"{path}: no feature head of a training run ({type(error).__name__}); "
            "expected the feature_head.pt of the run that made the model"
        ) from None
    return head
