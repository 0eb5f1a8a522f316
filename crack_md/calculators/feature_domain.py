"""Whether structures are like the training data, seen from inside a model."""

from collections.abc import Callable, Iterable

import ase
import numpy as np
import torch
from ase.data import chemical_symbols
from jaxtyping import Float

from crack_md.calculators.crack import CrackCalculator
from crack_md.models.base import invariants
from crack_md.models.feature_statistics import FeatureStatistics
from crack_md.models.force_field import ForceField
from crack_md.neighbors import build_graph


def node_features(
    model: ForceField, atoms: ase.Atoms
) -> Float[np.ndarray, "atom channel"]:
    """Return the invariant node features of a structure in float64."""
    graph = build_graph(atoms, model.rule, dtype=model.dtype, device=model.device)
    with torch.no_grad():
        prediction = model(graph)
    return np.asarray(invariants(prediction).double().cpu().numpy())


def training_statistics(
    model: ForceField,
    structures: Iterable[ase.Atoms],
    *,
    seen: Callable[[int], None] | None = None,
) -> FeatureStatistics:
    """Return the statistics of a model's features on its training structures.

    Args:
        model: in eval mode.
        structures: what it was trained on, or a fair sample of it.
        seen: called with the number of structures done.
    """
    features, numbers = [], []
    for count, atoms in enumerate(structures, start=1):
        features.append(node_features(model, atoms))
        numbers.append(atoms.numbers)
        if seen is not None:
            seen(count)
    return FeatureStatistics.of(np.concatenate(features), np.concatenate(numbers))


def feature_distance(
    calculator: CrackCalculator,
) -> Callable[[ase.Atoms], tuple[float, str]] | None:
    """Return what measures how far a structure is from the training data.

    The function returns the distance of its farthest atom in units of that element's
    limit, and a sentence about it. None where the model was saved without statistics.
    """
    model = calculator.models[0]
    statistics = model.metadata.feature_statistics
    if statistics is None:
        return None

    def distance(atoms: ase.Atoms) -> tuple[float, str]:
        distances = statistics.distance(node_features(model, atoms), atoms.numbers)
        farthest = int(distances.argmax())
        symbol = chemical_symbols[atoms.numbers[farthest]]
        return float(distances[farthest]), (
            f"the surroundings of {symbol} (atom {farthest}) are "
            f"{distances[farthest]:.1f} times as far from the training data as the "
            "limit"
        )

    return distance
