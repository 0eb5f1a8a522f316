"""Calculators that take many structures at once, and others that are made to.

Nothing here knows PyTorch: workflows may use it, with any ASE calculator.
"""

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

Results = dict[str, Any]
"""What ASE's calculators keep: properties of one structure by their name in ASE."""
ALL_PROPERTIES = ("energy", "free_energy", "forces", "stress")


class Trajectory:
    """Names a structure that moves, call after call, among those of a batch.

    Its neighbor lists may be kept as long as this object is.
    """


@runtime_checkable
class BatchCalculator(Protocol):
    """Evaluates many structures in one call; `CrackCalculator` does."""

    implemented_properties: list[str]

    def calculate_many(
        self,
        structures: Sequence[Atoms],
        properties: Collection[str] = ALL_PROPERTIES,
        *,
        trajectories: Sequence[Trajectory] | None = None,
    ) -> list[Results | Exception]:
        """Return the results of every structure, or the error that it alone causes."""
        ...


def calculate_each(
    structures: Sequence[Atoms],
    calculator: BatchCalculator | BaseCalculator,
    properties: Collection[str],
    *,
    trajectories: Sequence[Trajectory] | None = None,
) -> list[Results | Exception]:
    """Return the properties of every structure, or the error that it alone causes.

    Any other calculator is asked for one structure after the other.
    """
    if isinstance(calculator, BatchCalculator):
        return calculator.calculate_many(
            structures, properties, trajectories=trajectories
        )
    found: list[Results | Exception] = []
    for atoms in structures:
        try:
            found.append(
                {name: calculator.get_property(name, atoms) for name in properties}
            )
        except Exception as error:  # whatever it is, it is this structure's alone
            found.append(error)
    return found
