"""From a crystal to its phonopy object, through forces on displaced supercells."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Float

from crack_md.errors import MissingDependencyError, StructureError
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
        # phonopy 4 warns that "auto", which is asked for, has become the default
        warnings.filterwarnings("ignore", message="primitive_matrix defaulted")
        phonon = phonopy.Phonopy(
            unitcell, supercell_matrix=np.diag(repeats), primitive_matrix="auto"
        )
    phonon.generate_displacements(distance=settings.displacement_A, is_plusminus="auto")
    supercells = phonon.supercells_with_displacements or []
    return phonon, [_ase_atoms(cell) for cell in supercells if cell is not None]


def compute_forces(
    supercells: list[Atoms],
    calculator: BaseCalculator,
    *,
    folder: Path | None = None,
    report: Report | None = None,
) -> list[Float[Array, "atom 3"]]:
    """Return forces in eV/Å on each supercell; those in the folder are not repeated.

    Raises:
        DataError: they cannot be written.
        StructureError: the calculator returned no number.
    """
    forces = []
    for number, atoms in enumerate(supercells, start=1):
        path = None if folder is None else folder / f"forces-{_name(atoms)}.npy"
        if path is not None and path.exists():
            found = np.load(path, allow_pickle=False)
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


def _store(path: Path, forces: Float[Array, "atom 3"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
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
