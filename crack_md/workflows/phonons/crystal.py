"""From a crystal to its force constants, and on to bands, heat, instabilities."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.errors import DataError, MissingDependencyError, StructureError
from crack_md.files import write_atomically
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.phonons.settings import (
    IMAGINARY_THZ,
    THZ_TO_PER_CM,
    DensityOfStates,
    ImaginaryMode,
    Phonons,
    PhononSettings,
    Segment,
    Thermodynamics,
)


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


def kinds_of_atoms(cell: Any) -> Int[np.ndarray, " atom"]:
    """Return a number for each kind of atom: an element of one mass.

    Isotopes vibrate differently, so that cells and zones which take them for the same
    are not those of the crystal. Masses that agree to 1e-6 u are equal.
    """
    pairs = np.column_stack([cell.numbers, np.round(cell.masses, 6)])
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1) + 1


def has_isotopes(cell: Any) -> bool:
    """Return whether an element of phonopy's cell has more than one mass."""
    return len(set(kinds_of_atoms(cell))) > len(set(cell.numbers))


def _primitive_matrix(unitcell: Any) -> Float[np.ndarray, "3 3"]:
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
) -> list[Float[np.ndarray, "atom 3"]]:
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


def _stored(path: Path, n_atoms: int) -> Float[np.ndarray, "atom 3"]:
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


def _store(path: Path, forces: Float[np.ndarray, "atom 3"]) -> None:
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


KJ_PER_MOL = units.kJ / units.mol
N_BINS = 400
NAMES = {"GAMMA": "Γ", "SIGMA": "Σ", "DELTA": "Δ", "LAMBDA": "Λ"}


def analyse(
    phonon: Any,
    forces: Sequence[NDArray[np.float64]] | None,
    *,
    settings: PhononSettings,
) -> Phonons:
    """Return the phonons of a phonopy object and the forces on its supercells.

    Args:
        phonon: phonopy's object with displacements; it is given force constants.
        forces: eV/Å on each displaced supercell; None where it has them already.
        settings: path, mesh and temperatures.
    """
    if forces is not None:
        phonon.forces = np.array(forces)
    phonon.produce_force_constants(
        calculate_full_force_constants=True, show_drift=False
    )
    raw = np.array(phonon.force_constants)
    asymmetry, sum_rule = force_constant_asymmetry(raw), sum_rule_violation(raw)
    phonon.symmetrize_force_constants(show_drift=False)
    segments = bands(phonon, settings.spacing_per_A)
    density, thermal = _mesh(phonon, settings)
    matrix = np.array(phonon.supercell_matrix)
    is_diagonal = np.array_equal(matrix, np.diag(np.diag(matrix)))
    return Phonons(
        segments,
        density,
        thermal,
        imaginary_modes(segments, _to_commensurate(phonon)),
        asymmetry,
        sum_rule,
        len(phonon.primitive),
        tuple(int(n) for n in np.diag(matrix)) if is_diagonal else None,  # type: ignore[arg-type]
    )


def force_constant_asymmetry(constants: Float[np.ndarray, "atom atom 3 3"]) -> float:
    """Return ‖Φ − Φᵀ‖ / ‖Φ‖, zero for the second derivatives of an energy.

    Raises:
        StructureError: nothing holds the atoms, as in a cell of one atom.
    """
    size = float(np.linalg.norm(constants))
    if size == 0:
        raise StructureError(
            "no atom feels that another one moves, so that there are no phonons; "
            "expected a larger supercell, or atoms within the reach of the model"
        )
    transposed = constants.transpose(1, 0, 3, 2)
    return float(np.linalg.norm(constants - transposed)) / size


def sum_rule_violation(constants: Float[np.ndarray, "atom atom 3 3"]) -> float:
    """Return the largest |Σ_i Φ_ij| in eV/Å²; a shifted crystal feels no force."""
    return float(np.abs(constants.sum(axis=0)).max())


def bands(phonon: Any, spacing_per_A: float) -> tuple[Segment, ...]:
    """Return the frequencies along seekpath's path through the Brillouin zone.

    The path is that of the primitive cell as it is, standardised or not.
    """
    import seekpath

    cell = phonon.primitive
    found = seekpath.get_path_orig_cell(
        (
            cell.cell.tolist(),
            cell.scaled_positions.tolist(),
            kinds_of_atoms(cell).tolist(),
        )
    )
    points, path = found["point_coords"], found["path"]
    reciprocal = np.linalg.inv(cell.cell).T
    qs = []
    for first, last in path:
        start, end = np.array(points[first]), np.array(points[last])
        length = np.linalg.norm((end - start) @ reciprocal)
        count = max(2, round(float(length) / spacing_per_A) + 1)
        qs.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    phonon.run_band_structure(qs)
    result = phonon.band_structure
    return tuple(
        Segment(
            (_label(first), _label(last)),
            np.array(q),
            np.array(distance),
            np.array(frequency),
        )
        for (first, last), q, distance, frequency in zip(
            path,
            result.qpoints,
            result.distances,
            result.frequencies,
            strict=True,
        )
    )


def _label(name: str) -> str:
    """Return ``Γ`` for ``GAMMA`` and ``S₀`` for ``S_0``."""
    base, _, index = name.partition("_")
    small = index.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    return NAMES.get(base, base) + small


def _mesh(
    phonon: Any, settings: PhononSettings
) -> tuple[DensityOfStates, Thermodynamics]:
    # phonopy's symmetry of the mesh is that of elements: isotopes break it
    is_symmetric = not has_isotopes(phonon.primitive)
    phonon.run_mesh(settings.mesh_length_A, is_mesh_symmetry=is_symmetric)
    phonon.run_total_dos(freq_pitch=np.ptp(phonon.mesh.frequencies) / N_BINS)
    dos = phonon.total_dos
    density = DensityOfStates(np.array(dos.frequency_points), np.array(dos.dos))
    # Imaginary modes and the three zeros at Γ have no place in harmonic sums.
    phonon.run_thermal_properties(
        t_min=0.0,
        t_max=settings.max_temperature_K,
        t_step=10.0,
        cutoff_frequency=-IMAGINARY_THZ,
    )
    found = phonon.thermal_properties
    free_energy = np.array(found.free_energy) * KJ_PER_MOL
    return density, Thermodynamics(
        np.array(found.temperatures),
        free_energy,
        np.array(found.entropy) * KJ_PER_MOL / 1000.0,
        np.array(found.heat_capacity) * KJ_PER_MOL / 1000.0,
        float(free_energy[0]),
    )


def _to_commensurate(phonon: Any) -> Float[np.ndarray, "3 3"]:
    """Return the matrix that makes integers of the q points the supercell holds."""
    to_supercell = np.array(phonon.supercell.cell) @ np.linalg.inv(
        phonon.primitive.cell
    )
    return np.rint(to_supercell)


def imaginary_modes(
    segments: Sequence[Segment],
    to_commensurate: Float[np.ndarray, "3 3"],
    *,
    limit_THz: float = IMAGINARY_THZ,
) -> tuple[ImaginaryMode, ...]:
    """Return the unstable modes along the path, worst first.

    Of each branch the end points of segments are listed, and the worst point between
    them where that is worse than both ends.
    """
    found: dict[tuple[tuple[float, ...], int], ImaginaryMode] = {}
    for segment in segments:
        last = len(segment.q) - 1
        for branch, frequencies in enumerate(segment.frequency_THz.T, start=1):
            for point in sorted({0, int(frequencies.argmin()), last}):
                value = float(frequencies[point])
                if value >= limit_THz:
                    continue
                q = tuple(float(x) for x in segment.q[point])
                ends = {0: segment.labels[0], last: segment.labels[1]}
                repeats = to_commensurate @ np.array(q)
                mode = ImaginaryMode(
                    ends.get(point, "-".join(segment.labels)),
                    q,  # type: ignore[arg-type]
                    branch,
                    value,
                    value * THZ_TO_PER_CM,
                    bool(np.allclose(repeats, np.rint(repeats), atol=1e-6)),
                )
                found.setdefault((tuple(np.round(q, 6)), branch), mode)
    return tuple(sorted(found.values(), key=lambda mode: mode.frequency_THz))
