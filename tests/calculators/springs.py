"""A calculator that takes batches, costs nothing, and has exact answers."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from crack_md.calculators.batched import ALL_PROPERTIES, Trajectory
from crack_md.errors import StructureError


class Springs(Calculator):
    """U = k/2 Σ r², every atom tied to the origin; k in eV/Å².

    Structures with ``atoms.info["broken"]`` are refused.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012
    metadata = "springs"
    forces_kind = "gradient"

    def __init__(self, stiffness: float = 1.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stiffness = stiffness
        self.batches: list[list[Any]] = []
        """``atoms.info["item"]`` of all structures, for every batch."""
        self.before_batch: Callable[[], None] = lambda: None

    @property
    def n_calls(self) -> int:
        return sum(map(len, self.batches))

    def calculate_many(
        self,
        structures: Sequence[Atoms],
        properties: Collection[str] = ALL_PROPERTIES,
        *,
        trajectories: Sequence[Trajectory] | None = None,
    ) -> list[dict[str, Any] | Exception]:
        self.before_batch()
        self.batches.append([atoms.info.get("item") for atoms in structures])
        return [self.answer(atoms) for atoms in structures]

    def answer(self, atoms: Atoms) -> dict[str, Any] | Exception:
        if atoms.info.get("broken"):
            return StructureError("a broken structure")
        energy = float(self.stiffness / 2 * np.sum(atoms.positions**2))
        forces = -self.stiffness * atoms.positions
        return {"energy": energy, "free_energy": energy, "forces": forces}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        (found,) = self.calculate_many([self.atoms])
        if isinstance(found, Exception):
            raise found
        self.results = found
