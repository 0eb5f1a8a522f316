"""Velocities that a structure brings, under whatever name."""

import numpy as np
from ase import Atoms
from ase.units import fs

from crack_md.errors import StructureError

UNKNOWN_NAMES = ("velo", "vel", "velocity", "v")
"""Columns of other programs, each in its own unit."""


def with_momenta(atoms: Atoms) -> Atoms:
    """Return a copy whose column ``velocities`` has become momenta.

    The column is in ASE's unit, as ``Atoms.get_velocities`` returns it: Å (u/eV)^½⁻¹,
    which is 0.0982 Å/fs. ASE itself reads momenta only.

    Raises:
        StructureError: velocities that are not finite or disagree with momenta, or a
            column whose unit is anybody's guess.
    """
    moving = atoms.copy()
    unknown = [name for name in UNKNOWN_NAMES if moving.has(name)]
    if unknown and not moving.has("momenta") and not moving.has("velocities"):
        raise StructureError(
            f"the structure has a column '{unknown[0]}', whose unit is not known; "
            f"divide Å/fs by {fs:.6f} and call it 'velocities', or remove it to draw "
            "velocities anew"
        )
    if moving.has("velocities"):
        given = moving.arrays.pop("velocities")
        if given.shape != (len(moving), 3):
            raise StructureError(
                f"the column 'velocities' has the shape {given.shape}; expected three "
                "numbers for each atom"
            )
        momenta = given * moving.get_masses()[:, None]
        _require_agreement(moving, momenta)
        moving.set_momenta(momenta)
    if not np.isfinite(moving.get_momenta()).all():
        raise StructureError(
            "velocities of the structure are not finite (NaN or infinity); repair "
            "them, or remove them to draw them anew"
        )
    return moving


def _require_agreement(atoms: Atoms, momenta: np.ndarray) -> None:
    known = atoms.get_momenta()
    if known.any() and not np.allclose(known, momenta, rtol=1e-3, atol=1e-5):
        raise StructureError(
            "the structure has momenta and velocities that disagree; remove one of "
            "the two columns (velocities are those of ASE, in 0.0982 Å/fs)"
        )
