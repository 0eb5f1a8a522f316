"""What a teacher is; ASE calculators as teachers, and teachers as ASE calculators.

A teacher is asked for structures and answers with labels: energy, forces and, where it
has them, node features. It is always in evaluation mode, and nothing it returns carries
a gradient. Teachers see fully periodic cells: several published potentials go wrong by
electronvolts on slabs that are periodic in two directions only, so every teacher is
given the equivalent cell with vacuum that `as_periodic` makes.

Rows of the force Jacobian are central differences: they work for every teacher, also
for those whose forces are no gradient, at the price of two evaluations per row.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from numpy.typing import NDArray

from crack_md.errors import StructureError, TeacherError, describe_unknown_elements

VACUUM = 12.0
"""Å between images along a direction that is not periodic; beyond the reach of one
edge (6 Å in Nequix, 12 Å in the strict rule, which seldom looks past a surface)."""


@dataclass(frozen=True)
class JacobianRows:
    """How all forces answer when one coordinate is moved, for a few coordinates.

    Row k holds ∂F_j/∂r_ia for every atom j, with (i, a) = (atom[k], axis[k]); where
    forces are a gradient it is minus a row of the Hessian.
    """

    atom: NDArray[np.int64]
    """(row,) i, the atom that moves."""
    axis: NDArray[np.int64]
    """(row,) a, 0 to 2, the direction in which it moves."""
    values: NDArray[np.float32]
    """(row, atom, 3) in eV/Å²."""

    def first(self, n_rows: int) -> "JacobianRows | None":
        """Return the first rows; None for no row."""
        if n_rows == 0:
            return None
        return JacobianRows(
            self.atom[:n_rows], self.axis[:n_rows], self.values[:n_rows]
        )


@dataclass(frozen=True)
class TeacherLabels:
    """What a teacher says about one structure."""

    energy: float
    """eV; total, or what the teacher's model calls its energy."""
    forces: NDArray[np.float64]
    """(atom, 3) in eV/Å; constraints are not applied."""
    node_features: NDArray[np.floating] | None = None
    """(atom, coefficient, channel); coefficient 0 is invariant under rotation. In
    float32, or as a dataset has stored them in float16."""
    node_energy: NDArray[np.float64] | None = None
    """(atom,) in eV; they add up to the energy."""
    jacobian: JacobianRows | None = None
    """Sampled rows of the force Jacobian."""
    stress: NDArray[np.float64] | None = None
    """(3, 3) in eV/Å³, of the cell of `as_periodic`; not stored in datasets."""
    parts: Mapping[str, float] | None = None
    """Energies in eV by each teacher, where several made the label together."""
    spread: float | None = None
    """eV, standard deviation of those of them that can be trusted for the structure."""

    @property
    def largest_force(self) -> float:
        """Return the norm of the largest force in eV/Å; 0 without atoms."""
        return float(np.linalg.norm(self.forces, axis=1).max(initial=0.0))


@runtime_checkable
class Teacher(Protocol):
    """A potential that labels structures."""

    name: str
    sha256: str
    """Fingerprint of the weights; equal fingerprints give equal labels."""
    elements: frozenset[int] | None
    """Atomic numbers it knows; None where it cannot say."""
    has_features: bool
    energy_reference: str
    """total or adsorption, as in ModelMetadata."""

    def predict(self, atoms: Sequence[Atoms]) -> list[TeacherLabels]:
        """Return the labels of every structure, in the same order."""
        ...


def check_elements(atoms: Atoms, teacher: Teacher) -> None:
    """Raise TeacherError if the structure has an element unknown to the teacher."""
    if teacher.elements is None:
        return
    refusal = describe_unknown_elements(
        atoms.symbols,
        [chemical_symbols[number] for number in teacher.elements],
        by=f"the teacher {teacher.name}",
        of=f", which {atoms.get_chemical_formula()} holds",
    )
    if refusal:
        raise TeacherError(
            f"{refusal}; leave these structures out or take another teacher"
        )


def as_periodic(atoms: Atoms) -> Atoms:
    """Return the structure in a cell that is periodic along all three vectors.

    Vectors of directions that are not periodic are replaced, so that images are at
    least 12 Å apart; periodic ones stay as they are. Atoms are moved near the cell,
    since many potentials round positions to float32 before they subtract them: at 1e4 Å
    that costs 30 meV/Å. Constraints and calculators are left behind.
    """
    check_structure(atoms)
    periodic = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    open_axes = [axis for axis in range(3) if not atoms.pbc[axis]]
    if not open_axes:
        _move_inside(periodic, open_axes)
        return periodic
    cell = atoms.cell.complete().array.copy()
    if len(open_axes) == 3:
        cell = np.eye(3)
    for axis in open_axes:
        normal = np.cross(cell[axis - 2], cell[axis - 1])
        normal /= np.linalg.norm(normal)
        extent = np.ptp(atoms.positions @ normal)
        cell[axis] = normal * (extent + VACUUM)
    periodic.set_cell(cell)
    _move_inside(periodic, open_axes)
    return periodic


def _move_inside(atoms: Atoms, open_axes: Sequence[int]) -> None:
    """Move atoms by whole cells; along open axes all alike, to keep them together.

    Atoms in the cell and in those around it stay: they are near enough.
    """
    hops = np.floor(atoms.positions @ np.linalg.inv(atoms.cell.array))
    hops[:, open_axes] = hops[:, open_axes].min(axis=0)
    hops[np.abs(hops) <= 1] = 0
    if hops.any():
        atoms.positions -= hops @ atoms.cell.array


def batches(
    structures: Sequence[Atoms], *, atoms_per_batch: int
) -> Iterator[list[Atoms]]:
    """Yield the structures, fully periodic, in runs of at most so many atoms.

    A structure with more atoms than that is a batch of its own.
    """
    batch: list[Atoms] = []
    for one in structures:
        if batch and sum(map(len, batch)) + len(one) > atoms_per_batch:
            yield batch
            batch = []
        batch.append(as_periodic(one))
    if batch:
        yield batch


def predict_in_batches(
    teacher: Teacher,
    atoms: Sequence[Atoms],
    predict_batch: Callable[[list[Atoms]], Iterable[TeacherLabels]],
    *,
    atoms_per_batch: int,
) -> list[TeacherLabels]:
    """Return the labels of structures that a teacher takes some at a time.

    Raises:
        TeacherError: one has an element unknown to the teacher.
    """
    for one in atoms:
        check_elements(one, teacher)
    return [
        labels
        for batch in batches(atoms, atoms_per_batch=atoms_per_batch)
        for labels in predict_batch(batch)
    ]


def check_structure(atoms: Atoms) -> None:
    """Raise StructureError for structures that no potential can label."""
    name = atoms.get_chemical_formula() or "the structure"
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms; expected at least one")
    if not np.isfinite(atoms.positions).all():
        row = int(np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))[0])
        raise StructureError(
            f"{name}: the position of atom {row} is not a finite number; repair or "
            "remove the structure"
        )
    if not np.isfinite(atoms.cell.array).all():
        raise StructureError(f"{name}: the cell has entries that are not finite")
    if (atoms.numbers < 1).any():
        raise StructureError(f"{name}: contains atoms without an element (X)")
    lengths = atoms.cell.lengths()
    if (lengths[atoms.pbc] < 1e-3).any() or (
        atoms.pbc.all() and abs(atoms.cell.volume) < 1e-3
    ):
        raise StructureError(
            f"{name}: periodic along a cell vector of length zero; set the cell, or "
            "pbc=False along that direction"
        )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class TeacherCalculator(Calculator):
    """A teacher as an ASE calculator, for relaxations and dynamics with it.

    Labels of the last structure stay in `labels`, node features included, so frames
    that a relaxation visits anyway need no second evaluation.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "free_energy", "forces"]
        self.teacher = teacher
        self.labels: TeacherLabels | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Ask the teacher and keep its labels."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        assert self.atoms is not None, "ASE keeps the structure it calculates"
        (self.labels,) = self.teacher.predict([self.atoms])
        self.results = {
            "energy": self.labels.energy,
            "free_energy": self.labels.energy,
            "forces": self.labels.forces,
        }


class AseTeacher:
    """Labels from an ASE calculator; it has no node features.

    Losses on features (crack, n2n) need a teacher that has them and refuse this one.

    Args:
        calculator: Any calculator with energy and forces.
        name: How datasets call it.
        elements: Atomic numbers it knows, if it can say.
    """

    has_features = False
    energy_reference = "total"

    def __init__(
        self,
        calculator: Calculator,
        *,
        name: str | None = None,
        elements: frozenset[int] | None = None,
    ) -> None:
        self.calculator = calculator
        self.name = name or type(calculator).__name__.lower()
        identity = f"{type(calculator).__module__}.{self.name}:{calculator.todict()}"
        self.sha256 = hashlib.sha256(identity.encode()).hexdigest()
        self.elements = elements

    def predict(self, atoms: Sequence[Atoms]) -> list[TeacherLabels]:
        """Return energies and forces of every structure."""
        for one in atoms:
            check_elements(one, self)
        return [self._predict_one(as_periodic(one)) for one in atoms]

    def _predict_one(self, atoms: Atoms) -> TeacherLabels:
        # neighbor lists that calculators keep would sum in the order of the last one,
        # so that labels knew where a killed run began again
        getattr(self.calculator, "reset", lambda: None)()
        atoms.calc = self.calculator
        try:
            forces = np.array(atoms.get_forces(), dtype=np.float64)
            energy = float(atoms.get_potential_energy())
        except (NotImplementedError, RuntimeError) as error:
            raise TeacherError(
                f"the teacher {self.name} fails on {atoms.get_chemical_formula()}: "
                f"{error}; leave this structure out or choose another teacher"
            ) from error
        return TeacherLabels(energy, forces, node_energy=_node_energy(atoms, energy))


def _node_energy(atoms: Atoms, energy: float) -> NDArray[np.float64] | None:
    """Return the energies of atoms where the calculator splits its energy so."""
    if "energies" not in atoms.calc.implemented_properties:
        return None
    try:
        atomic = np.array(atoms.get_potential_energies(), dtype=np.float64)
    except (NotImplementedError, RuntimeError):
        return None
    return atomic if np.isclose(atomic.sum(), energy, rtol=1e-6) else None


STEP_A = 0.01
"""Å; differences in float32 lose as much to round-off as to curvature about here."""


def draw_coordinates(
    free: NDArray[np.bool_], n_rows: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (row,) atoms and axes of free atoms, none twice while there are enough.

    Args:
        free: (atom,) True for atoms that may move; without any, all atoms may.
        n_rows: How many coordinates.
        random: Chooses.
    """
    movable = np.flatnonzero(free) if free.any() else np.arange(len(free))
    chosen = random.permutation(3 * len(movable))
    chosen = np.resize(chosen, n_rows)  # from the first again, if there are too few
    return movable[chosen // 3], chosen % 3


def jacobian_rows(
    teacher: Teacher,
    structures: Sequence[Atoms],
    coordinates: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    *,
    step_A: float = STEP_A,
) -> list[JacobianRows]:
    """Return [F(r + h) − F(r − h)]/2h in eV/Å² along coordinates of every structure.

    Args:
        teacher: Asked for all moved structures at once.
        structures: Where to differentiate.
        coordinates: For each structure, the (row,) atoms and axes that move.
        step_A: h in Å.
    """
    moved = [
        _moved(atoms, atom, axis, sign * step_A)
        for atoms, (atoms_that_move, axes) in zip(structures, coordinates, strict=True)
        for atom, axis in zip(atoms_that_move.tolist(), axes.tolist(), strict=True)
        for sign in (1, -1)
    ]
    answers = iter(teacher.predict(moved))
    found = []
    for atoms, (atoms_that_move, axes) in zip(structures, coordinates, strict=True):
        rows = np.empty((len(axes), len(atoms), 3), dtype=np.float32)
        for row in rows:
            ahead, behind = next(answers).forces, next(answers).forces
            row[:] = (ahead - behind) / (2 * step_A)
        found.append(JacobianRows(atoms_that_move, axes, rows))
    return found


def _moved(atoms: Atoms, atom: int, axis: int, distance: float) -> Atoms:
    moved = atoms.copy()
    moved.positions[atom, axis] += distance
    return moved
