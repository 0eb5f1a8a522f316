"""What of the cell relaxes: ASE's cell filter, along the axes of the cell itself."""

from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.filters import FrechetCellFilter

from crack_md.errors import StructureError
from crack_md.workflows.surfaces.orientation import normal_axis, surface_normal

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
