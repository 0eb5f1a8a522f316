"""From the ``losses`` section of a configuration to weighted terms."""

from collections.abc import Sequence

import numpy as np
from ase import units

from crack_md.data.dataset import LabelledStructure
from crack_md.models.force_field import EnergyScale, ForceField
from crack_md.training.config import TrainConfig
from crack_md.training.losses import (
    Contrast,
    CrackLoss,
    CrmseLoss,
    EnergyLoss,
    ForceLoss,
    HessianLoss,
    InstanceLoss,
    LossTerm,
    NodeEnergyLoss,
    NodeToNodeLoss,
    TripletLoss,
    WeightedTerm,
)
from crack_md.training.losses.config import (
    ContrastConfig,
    CrackConfig,
    CrmseConfig,
    HessianConfig,
    InstanceConfig,
    NodeEnergyConfig,
    NodeToNodeConfig,
    SupervisedConfig,
    TripletConfig,
    term_names,
)
from crack_md.training.losses.hessian import Method


def build_terms(
    config: TrainConfig,
    student: ForceField,
    train: Sequence[LabelledStructure],
    labelled: Sequence[LabelledStructure],
) -> list[WeightedTerm]:
    """Return the loss terms in the order of the file.

    Args:
        config: The run.
        student: What is trained.
        train: The training frames.
        labelled: Those of them that show the teacher's labels, usually all.
    """
    terms: list[WeightedTerm] = []
    for loss, name in zip(config.losses, term_names(config.losses), strict=True):
        if isinstance(loss, SupervisedConfig):
            sigma = loss.sigma_eV or energy_spread(
                train, student.scale, per_atom=loss.per_atom
            )
            energy = EnergyLoss(loss.kind, sigma, loss.per_atom)
            terms.append(WeightedTerm(energy, loss.energy_weight))
            terms.append(WeightedTerm(ForceLoss(loss.kind, sigma), loss.force_weight))
        elif isinstance(loss, CrmseConfig):
            contrast = CrmseLoss(1 / (units.kB * loss.temperature_K))
            terms.append(WeightedTerm(contrast, loss.weight or 0.0))
        else:
            term = _term(loss, name, student, train, labelled)
            terms.append(WeightedTerm(term, loss.weight))
    return terms


def _term(
    loss: CrackConfig
    | HessianConfig
    | InstanceConfig
    | NodeEnergyConfig
    | NodeToNodeConfig
    | TripletConfig,
    name: str,
    student: ForceField,
    train: Sequence[LabelledStructure],
    labelled: Sequence[LabelledStructure],
) -> LossTerm:
    match loss:
        case CrackConfig():
            return CrackLoss(
                _contrast(loss),
                loss.pairs,
                loss.smallest_difference,
                loss.degrees,
                loss.same_elements,
                name=name,
            )
        case InstanceConfig():
            return InstanceLoss(_contrast(loss), loss.same_elements, name=name)
        case NodeToNodeConfig():
            return NodeToNodeLoss(loss.degrees, name=name)
        case TripletConfig():
            return TripletLoss(
                loss.partners, loss.error, loss.smallest_difference, name=name
            )
        case NodeEnergyConfig():
            sigma = loss.sigma_eV or node_energy_spread(labelled)
            return NodeEnergyLoss(sigma, loss.per_element_shift, name=name)
        case HessianConfig():
            sigma = loss.sigma_eV or energy_spread(train, student.scale, per_atom=False)
            by_gradient = student.forces == "gradient" and not loss.differences
            method: Method = "gradient" if by_gradient else "differences"
            return HessianLoss(method, loss.rows, sigma, loss.step_A, name=name)


def _contrast(loss: ContrastConfig) -> Contrast:
    return Contrast(
        loss.temperature, loss.anchor, loss.negatives, loss.chunk, loss.sample
    )


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
    return _usable(float(np.std(residuals)))


def node_energy_spread(frames: Sequence[LabelledStructure]) -> float:
    """Return how far in eV the teacher's atoms lie from the mean of their element."""
    numbers = np.concatenate([frame.atoms.numbers for frame in frames])
    energies = np.concatenate(
        [
            frame.teacher.node_energy
            for frame in frames
            if frame.teacher is not None and frame.teacher.node_energy is not None
        ]
    )
    _, element = np.unique(numbers, return_inverse=True)
    means = np.bincount(element, weights=energies) / np.bincount(element)
    return _usable(float(np.std(energies - means[element])))


def _usable(spread: float) -> float:
    return spread if spread > 1e-6 else 1.0  # one frame, or equal ones, has no spread
