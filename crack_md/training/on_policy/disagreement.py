"""How unsure a student is of a structure: a committee's spread, or its domain."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from crack_md.calculators import CrackCalculator
from crack_md.calculators.feature_domain import feature_distance
from crack_md.errors import ConfigError

Measure = Callable[[Sequence[Atoms]], list[float]]
UTTERLY = 1e6
"""Where a member of the committee has no answer, or an element no statistics."""


def build_measure(students: Sequence[Path], *, device: str = "auto") -> Measure:
    """Return what measures how unsure the first student is of each structure.

    With several students: the largest standard deviation of the force on an atom, eV/Å.
    With one: the distance of its farthest atom from the training data, in units of what
    999 of 1,000 training atoms stay below.

    Raises:
        ConfigError: A single student without feature statistics.
    """
    if len(students) > 1:
        return _spread(CrackCalculator(list(students), device=device))
    distance = feature_distance(CrackCalculator(students[0], device=device))
    if distance is None:
        raise ConfigError(
            f"{students[0]} has no feature statistics; make them with crack-md domain"
        )
    return lambda frames: [min(distance(atoms)[0], UTTERLY) for atoms in frames]


def _spread(committee: CrackCalculator) -> Measure:
    def measure(frames: Sequence[Atoms]) -> list[float]:
        answers = committee.calculate_many(frames, ("energy", "forces"))
        return [
            UTTERLY
            if isinstance(one, Exception)
            else float(np.linalg.norm(one["forces_std"], axis=1).max())
            for one in answers
        ]

    return measure
