"""From a crystal to its phonopy object, through forces on displaced supercells."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.errors import DataError, MissingDependencyError, StructureError
from crack_md.files import write_atomically
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.phonons.settings import Array, PhononSettings


def load_phonopy() -> Any:
    """Return the package phonopy.

    Raises:
        MissingDependencyError: it, or seekpath, is not installed.
    """
    try:
        import phonopy
        import seekpath  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError.of(
            str(error.name), extra="phonons", purpose="Computing phonons"
        ) from error
    return phonopy


def displace_supercells(
    atoms: Atoms, *, settings: PhononSettings
) -> tuple[Any, list[Atoms]]:
    """Return phonopy's object and the supercells whose forces it needs.

    Displacements come in both directions, unless symmetry makes one the other's image.

    Raises:
        MissingDependencyError: phonopy is not installed.
        StructureError: the structure is no crystal.
    """
    repeats = settings.repeats(atoms)
    phonopy = load_phonopy()
    from phonopy.structure.atoms import PhonopyAtoms

    unitcell = PhonopyAtoms(
        symbols=list(atoms.symbols),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )
    with warnings.catch_warnings():
        # phonopy sees elements alone: to it, a cell of isotopes is no primitive one
        warnings.filterwarnings("ignore", message=".*Point group symmetries of super")
        phonon = phonopy.Phonopy(
            unitcell,
            supercell_matrix=np.diag(repeats),
            primitive_matrix=_primitive_matrix(unitcell),
        )
    phonon.generate_displacements(distance=settings.displacement_A, is_plusminus="auto")
    supercells = phonon.supercells_with_displacements or []
    return phonon, [_ase_atoms(cell) for cell in supercells if cell is not None]


def kinds_of_atoms(cell: Any) -> Int[NDArray[np.int64], " atom"]:
    """Return a number for each kind of atom: an element of one mass.

    Isotopes vibrate differently, so that cells and zones which take them for the same
    are not those of the crystal. Masses that agree to 1e-6 u are equal.
    """
    pairs = np.column_stack([cell.numbers, np.round(cell.masses, 6)])
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1) + 1


def has_isotopes(cell: Any) -> bool:
    """Return whether an element of phonopy's cell has more than one mass."""
    return len(set(kinds_of_atoms(cell))) > len(set(cell.numbers))


def _primitive_matrix(unitcell: Any) -> Float[Array, "3 3"]:
    """Return the primitive cell in units of the cell, isotopes told apart."""
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix

    told_apart = PhonopyAtoms(
        numbers=kinds_of_atoms(unitcell),  # phonopy looks at elements alone
        cell=unitcell.cell,
        scaled_positions=unitcell.scaled_positions,
    )
    return np.array(guess_primitive_matrix(told_apart))


def compute_forces(
    supercells: list[Atoms],
    calculator: BaseCalculator,
    *,
    folder: Path | None = None,
    report: Report | None = None,
) -> list[Float[Array, "atom 3"]]:
    """Return forces in eV/Å on each supercell; those in the folder are not repeated.

    Raises:
        DataError: they cannot be written, or those of the folder are damaged.
        StructureError: the calculator returned no number.
    """
    forces = []
    if folder is not None:
        # once: a folder that is removed in mid-run is not made anew without its files
        folder.mkdir(parents=True, exist_ok=True)
    for number, atoms in enumerate(supercells, start=1):
        path = None if folder is None else folder / f"forces-{_name(atoms)}.npy"
        if path is not None and path.exists():
            found = _stored(path, len(atoms))
        else:
            atoms.calc = calculator
            found = np.asarray(atoms.get_forces(), dtype=np.float64)
            if not np.isfinite(found).all():
                raise StructureError(
                    f"forces on displaced supercell {number} are not finite; the "
                    "structure is outside what the model can describe"
                )
            if path is not None:
                _store(path, found)
        forces.append(found)
        if report is not None:
            report(ProgressEvent(number, len(supercells), "displacements"))
    return forces


def _stored(path: Path, n_atoms: int) -> Float[Array, "atom 3"]:
    try:
        found = np.asarray(np.load(path, allow_pickle=False))
        if found.shape != (n_atoms, 3) or not np.isfinite(found).all():
            raise ValueError(f"expected {n_atoms} finite forces")
    except Exception as error:  # damaged arrays break in many ways
        raise DataError(
            f"cannot read '{path}': {error}; it is damaged: remove it, and it is "
            "computed again"
        ) from error
    return found


def _store(path: Path, forces: Float[Array, "atom 3"]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, forces)
    write_atomically(path, buffer.getvalue())


def _name(atoms: Atoms) -> str:
    """Return a file name that tells supercells apart, whichever version made them."""
    content = np.round(atoms.positions, 9).tobytes() + atoms.numbers.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _ase_atoms(cell: Any) -> Atoms:
    return Atoms(
        list(cell.symbols),
        cell=cell.cell,
        scaled_positions=cell.scaled_positions,
        masses=cell.masses,
        pbc=True,
    )
