"""How far constants, scaling and the model leave a limiting potential open."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from crack_md.workflows.orr.diagram import (
    INTERMEDIATES,
    FreeEnergyDiagram,
    free_energy,
    orr_diagram,
)
from crack_md.workflows.orr.sets import (
    CORRECTIONS,
    DEFAULT_CORRECTIONS,
    DEFAULT_SCALING,
    NO_SOLVATION,
    SCALING_ERROR_EV,
    SOLVATIONS,
    scalings_for,
)


def limiting_potential_band(
    energies: Mapping[str, float], *, solvation: str = NO_SOLVATION
) -> tuple[float, float]:
    """Return the lowest and highest U_L in V over all sets of constants and scaling.

    Of several computed intermediates each choice of them counts, the others inferred:
    how far computed energies are from scaling is a part of what is not known. With
    water all solvation sets count; scaling sets are those that go with it.

    Args:
        energies: ΔE in eV against H2O and H2 of any of O, OH and OOH.
        solvation: name of the set; only whether it has water matters.
    """
    potentials = []
    scalings = scalings_for(energies, solvation)
    for free, scaling in product(_by_constants(energies, solvation), scalings):
        for count in range(1, len(free) + 1):
            for names in combinations(free, count):
                chosen = {name: free[name] for name in names}
                diagram = orr_diagram(chosen, scaling=scaling)
                potentials.append(diagram.limiting_potential)
    return min(potentials), max(potentials)


def _by_constants(
    energies: Mapping[str, float], solvation: str
) -> Iterator[dict[str, float]]:
    """Yield ΔG in eV under every set of corrections and, with water, of solvation."""
    waters = [NO_SOLVATION]
    if solvation != NO_SOLVATION:
        waters = [name for name in SOLVATIONS if name != NO_SOLVATION]
    for corrections, water in product(CORRECTIONS, waters):
        yield _free_energies(energies, corrections, water)


def _free_energies(
    energies: Mapping[str, float], corrections: str, solvation: str
) -> dict[str, float]:
    return {
        name: value
        for name, dE in energies.items()
        if (
            value := free_energy(dE, name, corrections=corrections, solvation=solvation)
        )
        is not None
    }


@dataclass(frozen=True)
class PotentialErrors:
    """Half of the range in V that a limiting potential has by each cause alone."""

    constants_V: float
    """Over all sets of corrections and, with water, of solvation."""
    scaling_V: float
    """Over all scaling sets that go with the water, and their scatter; 0 where nothing
    is inferred."""
    model_V: float
    """Each computed energy off by the error of the model, either way; never 0."""


def potential_errors(
    energies: Mapping[str, float],
    *,
    error_eV: float,
    corrections: str = DEFAULT_CORRECTIONS,
    scaling: str = DEFAULT_SCALING,
    solvation: str = NO_SOLVATION,
) -> PotentialErrors:
    """Return how far each cause alone moves the limiting potential.

    Args:
        energies: ΔE in eV against H2O and H2 of any of O, OH and OOH.
        error_eV: of each of these energies.
        corrections: name of the set.
        scaling: name of the set.
        solvation: name of the set.
    """
    constants = [
        orr_diagram(free, scaling=scaling)
        for free in _by_constants(energies, solvation)
    ]
    free = _free_energies(energies, corrections, solvation)
    scaled = [
        moved
        for name in scalings_for(energies, solvation)
        for moved in _around(orr_diagram(free, scaling=name))
    ]
    model = [
        orr_diagram({n: free[n] + s * error_eV for n, s in each}, scaling=scaling)
        for each in _signs(tuple(free))
    ]
    return PotentialErrors(*(_half_range(each) for each in (constants, scaled, model)))


def _around(diagram: FreeEnergyDiagram) -> Iterator[FreeEnergyDiagram]:
    """Yield a diagram with every inferred state off by the scatter, either way."""
    for signs in _signs(diagram.inferred):
        off = {name: sign * SCALING_ERROR_EV for name, sign in signs}
        levels = {
            name: level + off.get(name, 0.0)
            for name, level in zip(INTERMEDIATES, diagram.levels()[1:4], strict=True)
        }
        yield orr_diagram(levels)


def _signs(names: tuple[str, ...]) -> Iterator[tuple[tuple[str, int], ...]]:
    """Yield -1, 0 or +1 for every name, in all combinations."""
    for signs in product((-1, 0, 1), repeat=len(names)):
        yield tuple(zip(names, signs, strict=True))


def _half_range(diagrams: list[FreeEnergyDiagram]) -> float:
    return float(np.ptp([diagram.limiting_potential for diagram in diagrams])) / 2
