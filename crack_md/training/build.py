"""From a checked configuration to the objects that the trainer receives."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from crack_md.data.dataset import LabelledStructure
from crack_md.data.normalization import fit_energy_scale
from crack_md.errors import CheckpointError, ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.models.equiformer_v2 import EquiformerV2, EquiformerV2Config
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.neighbors import build_graph
from crack_md.training.config import StudentConfig, TrainConfig
from crack_md.training.frames import Frames
from crack_md.training.loss_config import CrackConfig, NodeToNodeConfig
from crack_md.training.losses import (
    CrackLoss,
    EnergyLoss,
    ForceLoss,
    NodeToNodeLoss,
    Ranks,
    WeightedTerm,
)
from crack_md.training.objective import FeatureHead, Objective
from crack_md.training.source import TrainingData


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
