"""Errors of one evaluation by atom, element and frame, and maps of embeddings.

`evaluate` gives means; this keeps what figures need: forces and energies as they are,
element and coordination of every atom, and both embeddings in the teacher's channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from crack_md.errors import MissingDependencyError
from crack_md.graph import AtomGraph, edge_vectors
from crack_md.models.force_field import ForceField, invariants
from crack_md.training.data.frames import Frames
from crack_md.training.evaluation import Against
from crack_md.training.loop.heads import FeatureHead

BOND_FACTOR = 1.2
"""Two atoms are bonded within this times the sum of their covalent radii: 3.27 Å for
Pt, between its first (2.77 Å) and second (3.92 Å) neighbors."""
N_RESAMPLES = 400

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Inspection:
    """One model on one set of frames; energies in eV, forces in eV/Å."""

    energy: Floats
    """(frame,) of the model."""
    energy_label: Floats
    n_atoms: NDArray[np.int64]
    """(frame,)"""
    kind: tuple[str, ...]
    group: tuple[str, ...]
    formula: tuple[str, ...]
    frame: NDArray[np.int64]
    """(atom,) the frame that an atom belongs to."""
    numbers: NDArray[np.int64]
    """(atom,) atomic numbers."""
    coordination: NDArray[np.int64]
    """(atom,) bonds, periodic images counted."""
    free: NDArray[np.bool_]
    """(atom,) False for atoms that a constraint holds; force errors leave them out."""
    forces: Floats
    """(atom, 3) of the model."""
    forces_label: Floats
    student: Floats | None
    """(atom, channel) behind the linear head P; None without a head or a teacher."""
    teacher: Floats | None

    @property
    def force_error(self) -> Floats:
        """Return (atom,) mean |ΔF| over components in eV/Å."""
        return np.abs(self.forces - self.forces_label).mean(axis=1)

    @property
    def energy_error_per_atom(self) -> Floats:
        """Return (frame,) model minus label in eV per atom."""
        return (self.energy - self.energy_label) / self.n_atoms


@dataclass(frozen=True)
class ElementErrors:
    """The errors on atoms of one element, forces in meV/Å."""

    symbol: str
    n_atoms: int
    force_mae_meV_per_A: float
    low_meV_per_A: float
    high_meV_per_A: float
    """95 % of resamples of whole frames lie between these."""
    zero_force_baseline_meV_per_A: float
    n_frames: int
    energy_mae_meV_per_atom: float
    """Over the frames that hold the element."""
    embedding_cosine: float | None


@dataclass(frozen=True)
class WorstFrame:
    """A frame that the model gets wrong."""

    group: str
    kind: str
    formula: str
    largest_force_error_meV_per_A: float
    """Norm of the largest error on one free atom."""
    on: str
    """Element of that atom."""
    energy_error_meV_per_atom: float


def inspect_model(
    student: ForceField,
    frames: Frames,
    *,
    head: FeatureHead | None = None,
    against: Against = "labels",
    batch_size: int = 32,
    report: Callable[[int], None] = lambda done: None,
) -> Inspection:
    """Return what the model says about every atom, beside the labels.

    Args:
        student: The model; left in the mode it was in.
        frames: Labelled frames with graphs of the student's neighbor rule.
        head: P of the feature losses, for the embeddings.
        against: The labels of the dataset, or those of the teacher.
        batch_size: Frames per forward pass.
        report: Called with the number of frames done.
    """
    was_training = student.training
    student.eval()
    parts: list[dict[str, torch.Tensor]] = []
    with torch.no_grad():
        for chosen in torch.arange(len(frames)).split(batch_size):
            batch = frames.batch(chosen)
            answer = student(batch.graph)
            label = batch.labels if against == "labels" else batch.teacher
            assert label is not None, "the caller checks that there are teacher labels"
            part = {
                "energy": answer.energy,
                "energy_label": label.energy,
                "n_atoms": batch.labels.sizes,
                "frame": chosen[batch.graph.batch],
                "numbers": batch.graph.atomic_numbers,
                "coordination": coordination(batch.graph),
                "free": batch.labels.free,
                "forces": answer.forces,
                "forces_label": label.forces,
            }
            if head is not None and frames.n_features:
                assert batch.teacher is not None
                pair = head(invariants(answer), invariants(batch.teacher))
                part |= {"student": pair.student, "teacher": pair.teacher}
            parts.append(part)
            report(int(chosen[-1]) + 1)
    student.train(was_training)
    columns = {
        name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]
    }
    for name, column in columns.items():
        if column.dtype.kind == "f":
            columns[name] = column.astype(np.float64)
    structures = frames.structures
    return Inspection(
        kind=tuple(one.kind for one in structures),
        group=tuple(one.group for one in structures),
        formula=tuple(one.atoms.get_chemical_formula() for one in structures),
        **({"student": None, "teacher": None} | columns),  # type: ignore[arg-type]
    )


def coordination(graph: AtomGraph) -> torch.Tensor:
    """Return (atom,) how many neighbors are bonded to an atom (`BOND_FACTOR`)."""
    radii = torch.tensor(covalent_radii, dtype=graph.positions.dtype)
    radius = radii[graph.atomic_numbers]
    reach = BOND_FACTOR * (radius.unsqueeze(1) + radius[graph.neighbors])
    distance = torch.linalg.vector_norm(edge_vectors(graph), dim=-1)
    return ((distance < reach) & graph.mask).sum(dim=1)


def errors_per_element(seen: Inspection, *, seed: int = 0) -> list[ElementErrors]:
    """Return the errors of every element, by atomic number.

    Intervals come from resampling frames, since atoms of one frame err together.
    """
    random = np.random.default_rng(seed)
    n_frames = len(seen.energy)
    weights = random.multinomial(n_frames, np.full(n_frames, 1 / n_frames), N_RESAMPLES)
    energy = 1e3 * np.abs(seen.energy_error_per_atom)
    cosine = None if seen.student is None else _cosines(seen)
    rows = []
    for number in np.unique(seen.numbers[seen.free]):
        mine = (seen.numbers == number) & seen.free
        count = np.bincount(seen.frame[mine], minlength=n_frames)
        error = np.bincount(
            seen.frame[mine], 1e3 * seen.force_error[mine], minlength=n_frames
        )
        total = weights @ count
        resampled = (weights @ error)[total > 0] / total[total > 0]
        low, high = np.percentile(resampled, [2.5, 97.5])
        size = np.abs(seen.forces_label[mine]).mean()
        rows.append(
            ElementErrors(
                symbol=chemical_symbols[number],
                n_atoms=int(mine.sum()),
                force_mae_meV_per_A=float(error.sum() / count.sum()),
                low_meV_per_A=float(low),
                high_meV_per_A=float(high),
                zero_force_baseline_meV_per_A=float(1e3 * size),
                n_frames=int((count > 0).sum()),
                energy_mae_meV_per_atom=float(energy[count > 0].mean()),
                embedding_cosine=None if cosine is None else float(cosine[mine].mean()),
            )
        )
    return rows


def worst_frames(seen: Inspection, *, count: int = 10) -> list[WorstFrame]:
    """Return the frames with the largest force error on a free atom, worst first."""
    error = 1e3 * np.linalg.norm(seen.forces - seen.forces_label, axis=1) * seen.free
    order = np.argsort(-error, kind="stable")
    atoms = order[np.sort(np.unique(seen.frame[order], return_index=True)[1])][:count]
    return [
        WorstFrame(
            group=seen.group[seen.frame[atom]],
            kind=seen.kind[seen.frame[atom]],
            formula=seen.formula[seen.frame[atom]],
            largest_force_error_meV_per_A=float(error[atom]),
            on=chemical_symbols[seen.numbers[atom]],
            energy_error_meV_per_atom=float(
                1e3 * seen.energy_error_per_atom[seen.frame[atom]]
            ),
        )
        for atom in atoms
    ]


def _cosines(seen: Inspection) -> Floats:
    assert seen.student is not None
    assert seen.teacher is not None
    norms = np.linalg.norm(seen.student, axis=1) * np.linalg.norm(seen.teacher, axis=1)
    return (seen.student * seen.teacher).sum(axis=1) / np.maximum(norms, 1e-12)


N_COMPONENTS = 30
"""Principal components that t-SNE starts from; more would be noise and time."""


@dataclass(frozen=True)
class EmbeddingMap:
    """Points of the same atoms for teacher and student, in common coordinates."""

    numbers: NDArray[np.int64]
    coordination: NDArray[np.int64]
    pca_teacher: Floats
    """(atom, 2)"""
    pca_student: Floats
    explained: tuple[float, float]
    """Share of the teacher's variance along both axes."""
    tsne_teacher: Floats
    tsne_student: Floats
    cka: float
    """Linear centered kernel alignment of all atoms; 1 for equal geometries."""
    cosine: float
    """Mean cosine of teacher and student, atom by atom."""


def embedding_map(
    seen: Inspection, *, n_atoms: int = 1500, seed: int = 0
) -> EmbeddingMap:
    """Return where teacher and student put a sample of the atoms.

    The axes of the PCA are the teacher's; t-SNE is fitted to both sets at once, so that
    an atom that both see alike has both its points in one place.

    Args:
        seen: With both embeddings.
        n_atoms: How many atoms to show at most.
        seed: Chooses them, and starts t-SNE.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
        ValueError: There are no embeddings, or fewer than four atoms.
    """
    if seen.student is None or seen.teacher is None:
        raise ValueError("no embeddings to show")
    total = len(seen.numbers)
    if total < 4:
        raise ValueError(f"a map of {total} atoms shows nothing")
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:n_atoms])
    teacher, student = seen.teacher[chosen], seen.student[chosen]
    mean, axes, share = principal_axes(teacher, N_COMPONENTS)
    of_teacher, of_student = (teacher - mean) @ axes.T, (student - mean) @ axes.T
    tsne = _tsne(np.concatenate([of_teacher, of_student]), seed)
    norms = np.linalg.norm(teacher, axis=1) * np.linalg.norm(student, axis=1)
    cosines = (teacher * student).sum(axis=1) / np.maximum(norms, 1e-12)
    return EmbeddingMap(
        numbers=seen.numbers[chosen],
        coordination=seen.coordination[chosen],
        pca_teacher=of_teacher[:, :2],
        pca_student=of_student[:, :2],
        explained=(float(share[0]), float(share[1])),
        tsne_teacher=tsne[: len(chosen)],
        tsne_student=tsne[len(chosen) :],
        cka=linear_cka(teacher, student),
        cosine=float(cosines.mean()),
    )


def principal_axes(points: Floats, number: int) -> tuple[Floats, Floats, Floats]:
    """Return mean, (axis, channel) principal axes and their shares of the variance."""
    mean = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - mean, full_matrices=False)
    variance = spread**2
    number = min(number, len(axes))
    return mean, axes[:number], variance[:number] / max(variance.sum(), 1e-300)


def linear_cka(one: Floats, other: Floats) -> float:
    """Return ‖YᵀX‖²/(‖XᵀX‖ ‖YᵀY‖) of centered X, Y (Kornblith et al. 2019).

    1 where one set is a rotation and scaling of the other, 0 without any relation.
    """
    x, y = one - one.mean(axis=0), other - other.mean(axis=0)
    cross = np.linalg.norm(y.T @ x) ** 2
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(cross / own) if own > 0 else 0.0


def _tsne(points: Floats, seed: int) -> Floats:
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise MissingDependencyError.of(
            "scikit-learn", extra="report", purpose="the map of embeddings"
        ) from None
    perplexity = min(30.0, (len(points) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        points
    )
    return np.asarray(found, dtype=float)  # some versions compute in float32
