"""Two embeddings in one picture: PCA and t-SNE of teacher and student together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crack_md.errors import MissingDependencyError
from crack_md.training.inspection import Inspection

N_COMPONENTS = 30
"""Principal components that t-SNE starts from; more would be noise and time."""

Floats = NDArray[np.float64]


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
