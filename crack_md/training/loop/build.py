"""From a checked configuration to the objects that the trainer receives."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from jaxtyping import Int
from torch import Tensor

from crack_md.data.dataset import LabelledStructure
from crack_md.data.statistics import fit_energy_scale, fit_isolated_references
from crack_md.data.torsions import bonded_pairs
from crack_md.errors import ConfigError, DataError, describe_unknown_elements
from crack_md.models.architectures import architecture_from, build_network
from crack_md.models.architectures.molecular import Molecular, MolecularConfig
from crack_md.models.checkpoint import load_model
from crack_md.models.domain import ShortestDistances
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.models.network import Architecture, Network
from crack_md.models.teachers import load_teacher
from crack_md.training.config import Part, RunConfig, StudentConfig, TrainConfig
from crack_md.training.crmse.chains import build_chains
from crack_md.training.crmse.contrast import ChainContrast
from crack_md.training.data.feed import BatchSource, FixedAtoms, FixedNumber, Sampler
from crack_md.training.data.frames import Frames
from crack_md.training.data.labels import OnlineLabels
from crack_md.training.data.source import TrainingData
from crack_md.training.loop.compiled import CompiledStudent
from crack_md.training.loop.heads import SHARED, build_heads, start_heads
from crack_md.training.loop.objective import Objective
from crack_md.training.losses import Ranks, build_terms
from crack_md.training.losses.base import TrainedOn
from crack_md.training.losses.hessian import HessianConfig


def build_frames(frames: Sequence[LabelledStructure], student: ForceField) -> Frames:
    """Return the frames with graphs of the student's neighbor rule."""
    return Frames(frames, student.rule)


def build_student(config: StudentConfig, data: TrainingData) -> ForceField:
    """Return a new student, or one that starts from the weights of another.

    Raises:
        ConfigError: ``init_from`` shares no weights with the architecture, or does not
            know an element of the dataset.
    """
    architecture = architecture_from(dataclasses.asdict(config.architecture))
    if isinstance(architecture, MolecularConfig):
        architecture = with_molecule(architecture, data.train)
    network = build_network(architecture)
    metadata = ModelMetadata(
        energy_reference=data.dataset.metadata.get("energy_reference", "total"),
        elements=data.dataset.elements,
        gas_references=data.dataset.metadata.get("gas_references", {}),
        shortest_distances=ShortestDistances.of(frame.atoms for frame in data.train),
    )
    if config.init_from is None:
        if isinstance(network, Molecular):
            network.standardise(np.stack([one.atoms.positions for one in data.train]))
        scale = fit_energy_scale(
            data.train,
            energy_reference=metadata.energy_reference,
            average_atoms=config.architecture.average_atoms,
            short_range=network.short_range,
        )
        return ForceField(network, _with_isolated(scale, network, data), metadata)
    start = load_model(config.init_from)
    refusal = describe_unknown_elements(
        [chemical_symbols[number] for number in metadata.elements],
        [chemical_symbols[number] for number in start.metadata.elements],
        by=f"student.init_from {config.init_from}",
        of=", which the dataset holds",
    )
    if refusal:
        raise ConfigError(f"{refusal}; start from another model or from none")
    _require_same_molecule(start.network.config, architecture, config.init_from)
    copy_matching_weights(
        start.network,
        network,
        name=str(config.init_from),
        parts=config.init_parts,
    )
    return ForceField(network, _with_isolated(start.scale, network, data), metadata)


def with_molecule(
    config: MolecularConfig, frames: Sequence[LabelledStructure]
) -> MolecularConfig:
    """Return the choices with the molecule that all frames are of.

    Raises:
        DataError: Frames of several molecules, or of a periodic structure.
        ConfigError: The recipe names another molecule.
    """
    numbers = frames[0].atoms.numbers
    for frame in frames:
        if not np.array_equal(frame.atoms.numbers, numbers) or frame.atoms.pbc.any():
            raise DataError(
                "architecture 'molecular' is a model of one molecule in vacuum, and "
                f"the data have {frames[0].atoms.symbols} and {frame.atoms.symbols}"
                f"{' (periodic)' if frame.atoms.pbc.any() else ''}; use architecture "
                "'ace' or 'painn', or frames with the same atoms in the same order"
            )
    positions = np.stack([frame.atoms.positions for frame in frames])
    found = dataclasses.replace(
        config,
        atoms=" ".join(frames[0].atoms.symbols),
        bonds=" ".join(f"{i}-{j}" for i, j in bonded_pairs(numbers, positions)),
    )
    if config.atoms not in ("", found.atoms) or config.bonds not in ("", found.bonds):
        raise ConfigError(
            f"student.architecture names the molecule '{config.atoms}' with bonds "
            f"'{config.bonds}', and the data have '{found.atoms}' with '{found.bonds}'"
            "; leave both out: they are found in the data"
        )
    return found


def _require_same_molecule(
    start: Architecture, wanted: Architecture, path: Path
) -> None:
    if not (isinstance(start, MolecularConfig) and isinstance(wanted, MolecularConfig)):
        return
    if (start.atoms, start.bonds) != (wanted.atoms, wanted.bonds):
        raise ConfigError(
            f"student.init_from {path} is a model of the molecule '{start.atoms}' with "
            f"bonds '{start.bonds}', and the data have '{wanted.atoms}' with "
            f"'{wanted.bonds}'; start from a model of this molecule or from none"
        )


def _with_isolated(
    scale: EnergyScale, network: Network, data: TrainingData
) -> EnergyScale:
    """Return the scale with energies of single atoms, where the data tell them all.

    Networks of the strict rule have no envelope that would lead there.
    """
    if network.short_range is None or scale.isolated_references:
        return scale
    found = fit_isolated_references(data.train, network.config.cutoff)
    if not set(data.dataset.elements).issubset(found):
        return scale
    return dataclasses.replace(scale, isolated_references=found)


def copy_matching_weights(
    source: Network,
    target: Network,
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
        ConfigError: Less than half of the weights in these parts have a match, or the
            architecture has no such part.
    """
    held, own = source.state_dict(), target.state_dict()
    if parts is not None:
        missing = [part for part in parts if part not in target.parts]
        if missing:
            raise ConfigError(
                f"student.init_parts has '{missing[0]}', but an architecture "
                f"'{target.config.name}' has {', '.join(target.parts) or 'no parts'}"
            )
        prefixes = tuple(prefix for part in parts for prefix in target.parts[part])
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
    config: TrainConfig,
    student: ForceField,
    train: Frames,
    *,
    ranks: Ranks,
    sample: Frames | None = None,
) -> Objective:
    """Return the student with its losses, and the heads P where some are needed.

    Args:
        config: The run.
        student: What is trained.
        train: The training frames.
        ranks: The other processes.
        sample: Frames with the teacher's features, where the training frames have none.
    """
    labelled = sample or train
    channels = student.network.config.feature_channels
    heads = build_heads(config.features, config.losses, channels, labelled)
    start_heads(heads, config.student.init_from)
    return Objective(
        student,
        build_terms(
            config.losses, TrainedOn(student, train.structures, labelled.structures)
        ),
        head=heads.pop(SHARED, None),
        own_heads=heads,
        ranks=ranks,
        autocast_dtype=config.run.autocast_dtype,
        compiled=CompiledStudent(student) if config.run.compile else None,
    )


def build_contrast(
    config: TrainConfig, student: ForceField, data: TrainingData
) -> ChainContrast | None:
    """Return the chains of the student, on its device, where a loss asks for them.

    Raises:
        DataError: there are no validation frames, which tell when to stop.
    """
    settings = config.crmse
    if settings is None:
        return None
    if not data.validation:
        raise DataError(
            f"{config.data.path} has no validation frames, and a loss of kind 'crmse' "
            "needs them: the gap between seen and unseen frames tells when it has done "
            "enough; give some rows the split 'val', or a set with data.validation"
        )
    return ChainContrast(
        build_chains(settings, student, data.train, seed=config.run.seed),
        equilibrate_steps=settings.equilibrate_steps,
    )


def build_feed(
    config: TrainConfig,
    train: Frames,
    *,
    rank: int,
    n_ranks: int,
    device: torch.device,
) -> BatchSource:
    """Return what draws, shares out and labels the batches of one process."""
    run = config.run
    return BatchSource(
        train,
        build_sampler(run, train.sizes),
        rank=rank,
        n_ranks=n_ranks,
        accumulate=run.accumulate,
        device=device,
        teacher=_online_labels(config, train, device),
    )


def build_sampler(run: RunConfig, sizes: Int[Tensor, " frame"]) -> Sampler:
    """Return what chooses the frames of a step, by their number or by their atoms."""
    if run.atoms_per_batch is None:
        assert run.batch_size is not None, "the configuration has one of both"
        return FixedNumber(len(sizes), run.batch_size, seed=run.seed)
    n_parts = run.accumulate * run.n_ranks
    return FixedAtoms(sizes, run.atoms_per_batch, seed=run.seed, n_parts=n_parts)


def _online_labels(
    config: TrainConfig, train: Frames, device: torch.device
) -> OnlineLabels | None:
    if config.teacher is None or config.teacher.labels == "start":
        return None
    rows = [loss.rows for loss in config.losses if isinstance(loss, HessianConfig)]
    return OnlineLabels(
        load_teacher(config.teacher.spec, device=device),
        train.structures,
        device=device,
        seed=config.run.seed,
        n_rows=max(rows, default=0),
        highest_degree=config.highest_degree,
        autocast_dtype=config.run.autocast_dtype,
    )
