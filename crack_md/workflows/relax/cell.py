"""What of the cell relaxes, and the symmetry that is kept."""

from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.errors import StructureError
from crack_md.workflows.surfaces.slab import normal_axis, surface_normal

Cell = Literal["none", "isotropic", "full", "xy"]
"""``xy`` is the plane of the surface: of the two cell vectors without vacuum, or of the
first two where this is no slab; it may lie in space as it likes."""


def cell_filter(
    atoms: Atoms, cell: Cell, *, pressure_GPa: float = 0.0
) -> FrechetCellFilter:
    """Return what an optimizer relaxes instead of the atoms.

    Raises:
        StructureError: the cell is not periodic where it should relax.
    """
    pressure = pressure_GPa * units.GPa
    if cell == "xy":
        require_periodic(atoms, f"cell '{cell}'", apart_from=normal_axis(atoms))
        return _InPlaneFilter(atoms, scalar_pressure=pressure)
    require_periodic(atoms, f"cell '{cell}'")
    hydrostatic = cell == "isotropic"
    return FrechetCellFilter(
        atoms, hydrostatic_strain=hydrostatic, scalar_pressure=pressure
    )


def require_periodic(atoms: Atoms, what: str, *, apart_from: int | None = None) -> None:
    """Refuse structures that are not periodic along all vectors, or all but one.

    Raises:
        StructureError: it is one of these.
    """
    needed = np.arange(3) != apart_from
    if not atoms.pbc[needed].all():
        raise StructureError(
            f"{what} needs a structure that is periodic along "
            f"{'all' if apart_from is None else 'two'} cell vectors; its pbc is "
            f"{atoms.pbc.tolist()}"
        )


class _InPlaneFilter(FrechetCellFilter):
    """Strain within the plane of the surface: ASE's masks know the axes of space only.

    Rows behind the atoms are the derivative by the logarithm of the deformation. With P
    the projection on the plane, P G P moves nothing out of it.
    """

    def __init__(self, atoms: Atoms, *, scalar_pressure: float) -> None:
        super().__init__(atoms, scalar_pressure=scalar_pressure)  # type: ignore[no-untyped-call]
        normal = surface_normal(atoms)
        self._plane = np.eye(3) - np.outer(normal, normal)

    def get_forces(self, **kwargs: Any) -> Any:
        """Return forces on atoms and, below them, on the strain within the plane."""
        forces = super().get_forces(**kwargs)  # type: ignore[no-untyped-call]
        n_atoms = len(self.atoms)
        forces[n_atoms:] = self._plane @ forces[n_atoms:] @ self._plane
        return forces


Vectors = Float[np.ndarray, "atom 3"]
TOLERANCE = 0.02
"""Of the test, relative: cells are symmetric to about 0.01 Å in 3 Å."""
SHOWN = 6


def hold_symmetry(atoms: Atoms, *, tolerance_A: float) -> None:
    """Add, in place, the constraint that keeps the symmetry.

    Without other constraints the structure is first made symmetric to round-off. With
    them it stays as it is, for held atoms may not move; all its steps are symmetric.

    Raises:
        StructureError: not a crystal, or constraints that the symmetry does not have.
    """
    require_periodic(atoms, "symmetry")
    refined = atoms.copy()
    refined.set_constraint()
    symmetry = FixSymmetry(refined, symprec=tolerance_A)
    if atoms.constraints:
        _require_invariant(atoms, symmetry, refined.cell.array)
    else:
        atoms.set_cell(refined.cell)
        atoms.set_positions(refined.positions)
    atoms.set_constraint([*atoms.constraints, symmetry])


def _require_invariant(
    atoms: Atoms, symmetry: FixSymmetry, cell: Float[np.ndarray, "3 3"]
) -> None:
    """Refuse constraints C that an operation U does not map onto themselves.

    C U v = U C v for one random v means, but for odd chance, that C U = U C.
    """
    vectors = np.random.default_rng(0).standard_normal((len(atoms), 3))
    held = _constrained(atoms, vectors)
    wrong = np.zeros(len(atoms), dtype=bool)
    for rotation, atom_map in zip(symmetry.rotations, symmetry.symm_map, strict=True):
        turn = cell.T @ rotation @ np.linalg.inv(cell.T)
        first = _constrained(atoms, _moved(vectors, turn, atom_map))
        wrong |= np.abs(first - _moved(held, turn, atom_map)).max(axis=1) > TOLERANCE
    if wrong.any():
        kinds = ", ".join(sorted({type(c).__name__ for c in atoms.constraints}))
        found = np.flatnonzero(wrong)
        names = ", ".join(map(str, found[:SHOWN]))
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise StructureError(
            f"symmetry cannot be kept: its operations do not map the constraints "
            f"({kinds}) onto themselves, at atoms {names}{more}; constrain "
            "all or none of the atoms that are equivalent, or relax without symmetry"
        )


def _moved(vectors: Vectors, turn: Vectors, atom_map: NDArray[np.int_]) -> Vectors:
    """Return vectors turned and brought to the atoms that theirs are mapped to."""
    moved = np.empty_like(vectors)
    moved[atom_map] = vectors @ turn.T
    return moved


def _constrained(atoms: Atoms, vectors: Vectors) -> Vectors:
    """Return what constraints leave of forces."""
    left = vectors.copy()
    for constraint in atoms.constraints:
        constraint.adjust_forces(atoms, left)
    return left
