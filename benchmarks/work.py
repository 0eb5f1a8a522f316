"""What is measured: structures, alone, in batches, and in molecular dynamics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from crack_md.bench.speed import platinum_slab

WORKS = {
    "single": "one structure through the ASE calculator",
    "network": "the model alone, neighbors given",
    "batch": "many structures in as few passes as are fast",
    "md": "steps of NVE molecular dynamics in ASE",
}
SLAB = "O/Pt(111)"
SILICON_A = 5.431


@dataclass(frozen=True)
class Case:
    """One kind of work on one or several structures."""

    system: str
    work: str
    structures: tuple[Atoms, ...]

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms in all structures together."""
        return sum(len(one) for one in self.structures)

    @property
    def name(self) -> str:
        """Return the name for the report."""
        count = len(self.structures)
        many = (
            f"{count} × {len(self.structures[0])}" if count > 1 else f"{self.n_atoms}"
        )
        return f"{self.system}, {many} atoms, {self.work}"

    def as_lists(self) -> list[dict[str, Any]]:
        """Return the structures as workers take them."""
        return [
            {
                "numbers": one.numbers.tolist(),
                "positions": one.positions.tolist(),
                "cell": one.cell.array.tolist(),
                "pbc": one.pbc.tolist(),
            }
            for one in self.structures
        ]


def cases(
    works: Sequence[str], *, atoms: Sequence[int], batch: int, md_atoms: Sequence[int]
) -> list[Case]:
    """Return the cases, work by work, small ones first.

    Args:
        works: Out of `WORKS`.
        atoms: Sizes of single slabs.
        batch: How many slabs of the first size make a batch.
        md_atoms: Sizes of slabs for molecular dynamics.
    """
    found = []
    for work in works:
        if work == "batch":
            slab = platinum_slab(atoms[0])
            copies = tuple(rattled(slab, seed) for seed in range(batch))
            found.append(Case(SLAB, "batch", copies))
            continue
        sizes = md_atoms if work == "md" else atoms
        found += [Case(SLAB, work, (platinum_slab(size),)) for size in sizes]
    return found


def dynamics(atoms: Sequence[int]) -> list[Case]:
    """Return molecular dynamics of a slab and of a silicon crystal of every size."""
    return [
        case
        for size in atoms
        for case in (
            Case(SLAB, "md", (platinum_slab(size),)),
            Case("Si", "md", (silicon(size),)),
        )
    ]


def silicon(n_atoms: int) -> Atoms:
    """Return a rattled diamond cell of silicon of about so many atoms."""
    side = max(round((n_atoms / 8) ** (1 / 3)), 1)
    atoms = bulk("Si", "diamond", a=SILICON_A, cubic=True) * (side, side, side)
    atoms.rattle(0.05, seed=0)
    return atoms


def rattled(atoms: Atoms, seed: int) -> Atoms:
    """Return a copy with every atom moved a little."""
    copy = atoms.copy()
    random = np.random.default_rng(seed)
    copy.positions += random.normal(0.0, 0.02, copy.positions.shape)
    return copy
