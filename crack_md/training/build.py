"""From a checked configuration to the objects that the trainer receives."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from crack_md.data.dataset import LabelledStructure
from crack_md.data.normalization import fit_energy_scale
from crack_md.errors import ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.models.equiformer_v2 import EquiformerV2, EquiformerV2Config
from crack_md.models.force_field import ForceField, ModelMetadata
from crack_md.neighbors import build_graph
from crack_md.training.config import Part, StudentConfig, TrainConfig
from crack_md.training.frames import Frames
from crack_md.training.heads import FeatureHead, read_head
from crack_md.training.losses import Ranks
from crack_md.training.objective import Objective
from crack_md.training.source import TrainingData
from crack_md.training.terms import build_terms

PREFIXES: dict[Part, tuple[str, ...]] = {
    "embeddings": ("sphere_embedding.", "edge_degree_embedding."),
    "blocks": ("blocks.",),
    "norm": ("norm.",),
    "delta": ("delta.",),
    "energy_head": ("energy_block.",),
    "force_head": ("force_block.",),
}
"""How the weights of each part are named."""


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
    copy_matching_weights(
        start.network,
        network,
        name=str(config.init_from),
        parts=config.init_parts,
    )
    return ForceField(network, start.scale, metadata)


def copy_matching_weights(
    source: torch.nn.Module,
    target: torch.nn.Module,
    *,
    name: str,
    parts: Sequence[Part] | None = None,
) -> None:
    """Copy every tensor that both have with the same shape, e.g. all but a force head.

    Args:
        source: Where weights come from; may be deeper.
        target: Where they go.
        name: Of the source, for messages.
        parts: Which parts of the network, by default all.

    Raises:
        ConfigError: Less than half of the weights in these parts have a match.
    """
    held, own = source.state_dict(), target.state_dict()
    if parts is not None:
        prefixes = tuple(prefix for part in parts for prefix in PREFIXES[part])
        own = {key: own[key] for key in own if key.startswith(prefixes)}
    matching = {
        key: held[key]
        for key, tensor in own.items()
        if key in held and held[key].shape == tensor.shape
    }
    n_matching = sum(tensor.numel() for tensor in matching.values())
    n_all = sum(tensor.numel() for tensor in own.values())
    if 2 * n_matching < n_all:
        raise ConfigError(
            f"student.init_from {name} matches {n_matching} of {n_all} weights of "
            f"{', '.join(parts or ['the network'])}; give student.architecture the "
            "sizes of that model"
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
