"""Errors of a model on labelled frames, beside those of no model (zero, the mean).

Errors are collected per frame and averaged at the end, so that any group of frames
(relaxed ones, one kind, one system) is a selection and not another pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crack_md.data.dataset import LabelledStructure
from crack_md.graph import AtomGraph, sum_over_structures
from crack_md.models.domain import FeatureStatistics
from crack_md.models.force_field import (
    ForceField,
    Prediction,
    invariants,
    measure_features,
)
from crack_md.training.data.frames import Batch, Frames
from crack_md.training.loop.heads import FeatureHead

EFWT_ENERGY_eV = 0.02
EFWT_FORCE = 0.03
"""OC20: a frame counts where |ΔE| < 0.02 eV and the largest |ΔF| < 0.03 eV/Å."""
DOMAIN_ATOMS, DOMAIN_BATCH = 200_000, 64
"""Training atoms whose features give statistics, and frames per forward pass."""


class FrameErrors(NamedTuple):
    """What the measures need of every frame."""

    energy_error: Float[Tensor, " frame"]
    """Model minus label, eV."""
    energy_spread: Float[Tensor, " frame"]
    """Mean-energy baseline minus label, eV."""
    n_atoms: Int[Tensor, " frame"]
    force_error_sum: Float[Tensor, " frame"]
    """Σ |ΔF| over the components of free atoms, eV/Å."""
    force_sum: Float[Tensor, " frame"]
    """Σ |F| over the same components: the error of zero forces."""
    n_components: Float[Tensor, " frame"]
    largest_force_error: Float[Tensor, " frame"]
    """Largest component, eV/Å."""
    feature_error_sum: Float[Tensor, " frame"]
    """Σ over atoms of the mean |P z_S − z_T| over features."""
    feature_cosine_sum: Float[Tensor, " frame"]
    """Σ over atoms of cos(P z_S, z_T) over features."""


@dataclass(frozen=True)
class Metrics:
    """Mean errors of a group of frames; units in the names (A is Å)."""

    n_frames: int
    energy_mae_meV: float
    energy_mae_meV_per_atom: float
    mean_energy_baseline_meV: float
    mean_energy_baseline_meV_per_atom: float
    force_mae_meV_per_A: float
    zero_force_baseline_meV_per_A: float
    efwt_percent: float
    embedding_mae: float | None
    embedding_cosine: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the measures by name."""
        return asdict(self)


def force_statistics(
    forces: Float[Tensor, "atom 3"],
    label: Float[Tensor, "atom 3"],
    free: Bool[Tensor, " atom"],
    graph: AtomGraph,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return Σ|ΔF|, Σ|F|, number and largest |ΔF| of free components, per structure."""
    weight = free.to(label.dtype).unsqueeze(1)
    error = (forces - label).abs() * weight
    largest = error.new_zeros(graph.n_structures).scatter_reduce(
        0, graph.batch, error.amax(dim=1), "amax"
    )
    return (
        sum_over_structures(error.sum(dim=1), graph),
        sum_over_structures((label.abs() * weight).sum(dim=1), graph),
        sum_over_structures(3 * weight.squeeze(1), graph),
        largest,
    )


def feature_statistics(
    student: Float[Tensor, "atom channel"],
    teacher: Float[Tensor, "atom channel"],
    graph: AtomGraph,
) -> tuple[Float[Tensor, " structure"], Float[Tensor, " structure"]]:
    """Return Σ over atoms of mean absolute error and cosine, both over features."""
    error = (student - teacher).abs().mean(dim=-1)
    cosine = torch.nn.functional.cosine_similarity(student, teacher, dim=-1)
    return sum_over_structures(error, graph), sum_over_structures(cosine, graph)


def mean_energy_errors(
    residual: Float[Tensor, " frame"], sizes: Int[Tensor, " frame"], *, extensive: bool
) -> Float[Tensor, " frame"]:
    """Return the error of predicting the mean of these frames, eV.

    Args:
        residual: Energies without their element references, eV.
        sizes: Atoms per frame.
        extensive: Predict a mean per atom (total energies) or per frame (adsorption).
    """
    if extensive:
        return (residual / sizes).mean() * sizes - residual
    return residual.mean() - residual


def summarize(
    errors: FrameErrors, chosen: Bool[Tensor, " frame"] | None = None
) -> Metrics:
    """Return the mean errors of the chosen frames."""
    if chosen is not None:
        errors = FrameErrors(*(column[chosen] for column in errors))
    energy, spread = errors.energy_error.abs(), errors.energy_spread.abs()
    components = errors.n_components.sum().clamp_min(1)
    within = (energy < EFWT_ENERGY_eV) & (errors.largest_force_error < EFWT_FORCE)
    n_atoms = errors.n_atoms.sum()
    with_features = bool(errors.feature_cosine_sum.isfinite().all())
    return Metrics(
        n_frames=len(energy),
        energy_mae_meV=1e3 * energy.mean().item(),
        energy_mae_meV_per_atom=1e3 * (energy / errors.n_atoms).mean().item(),
        mean_energy_baseline_meV=1e3 * spread.mean().item(),
        mean_energy_baseline_meV_per_atom=1e3 * (spread / errors.n_atoms).mean().item(),
        force_mae_meV_per_A=1e3 * (errors.force_error_sum.sum() / components).item(),
        zero_force_baseline_meV_per_A=1e3
        * (errors.force_sum.sum() / components).item(),
        efwt_percent=100 * within.double().mean().item(),
        embedding_mae=(
            (errors.feature_error_sum.sum() / n_atoms).item() if with_features else None
        ),
        embedding_cosine=(
            (errors.feature_cosine_sum.sum() / n_atoms).item()
            if with_features
            else None
        ),
    )


def concatenate(parts: Sequence[FrameErrors]) -> FrameErrors:
    """Return the errors of all parts in their order."""
    return FrameErrors(*(torch.cat(column) for column in zip(*parts, strict=True)))


Against = Literal["labels", "teacher"]

RELAXED_FMAX = 0.05
"""eV/Å; a frame is relaxed where no free atom feels a larger force. Frames along a
relaxation are not, whatever their kind is called."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one model on one set of frames."""

    against: Against
    all: Metrics
    relaxed: Metrics | None
    """Frames at rest (`RELAXED_FMAX`), on whose small forces every model looks good."""
    unrelaxed: Metrics | None
    kinds: dict[str, Metrics]
    embedding_skipped: str | None
    """Why embedding metrics are missing."""

    def as_dict(self) -> dict[str, object]:
        """Return plain containers, for JSON."""
        groups = {"relaxed": self.relaxed, "unrelaxed": self.unrelaxed}
        return {
            "against": self.against,
            "all": self.all.as_dict(),
            **{name: group.as_dict() for name, group in groups.items() if group},
            "kinds": {kind: group.as_dict() for kind, group in self.kinds.items()},
            "embedding_skipped": self.embedding_skipped,
        }


def known_frames(
    student: ForceField, frames: Sequence[LabelledStructure]
) -> list[LabelledStructure]:
    """Return the frames whose elements the student was trained on."""
    known = set(student.metadata.elements)
    return [one for one in frames if known.issuperset(one.atoms.numbers.tolist())]


def evaluate(
    student: ForceField,
    frames: Frames,
    *,
    head: FeatureHead | None = None,
    against: Against = "labels",
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Return the errors of the student on all frames.

    Args:
        student: The model; left in the mode it was in.
        frames: Labelled frames with graphs of the student's neighbor rule.
        head: P of the feature losses; without it there are no embedding metrics.
        against: The labels of the dataset, or those of the teacher.
        batch_size: Frames per forward pass.
        device: Where the student is.
        report: Called with the number of frames done.
    """
    errors = frame_errors(
        student,
        frames,
        head=head,
        against=against,
        batch_size=batch_size,
        device=device,
        report=report,
    )
    kinds = [structure.kind for structure in frames.structures]
    is_relaxed = torch.tensor([_is_relaxed(frame) for frame in frames.structures])
    return Evaluation(
        against=against,
        all=summarize(errors),
        relaxed=_group(errors, is_relaxed),
        unrelaxed=_group(errors, ~is_relaxed),
        kinds={
            kind: summarize(errors, torch.tensor([other == kind for other in kinds]))
            for kind in sorted(set(kinds))
        },
        embedding_skipped=_why_no_embedding(frames, head),
    )


def frame_errors(
    student: ForceField,
    frames: Frames,
    *,
    head: FeatureHead | None,
    against: Against,
    batch_size: int,
    device: torch.device | str,
    report: Callable[[int], None] = lambda done: None,
) -> FrameErrors:
    """Return the errors of every frame, in the order of the frames."""
    was_training = student.training
    student.eval()
    parts = []
    order = frames.sizes.argsort(stable=True)  # alike sizes share a batch: less padding
    with torch.no_grad():  # gradient forces enable what they need themselves
        for chosen in order.split(batch_size):
            batch = frames.batch(chosen, device=device)
            parts.append(_batch_errors(student(batch.graph), batch, head, against))
            report(sum(len(part.energy_error) for part in parts))
    student.train(was_training)
    errors = FrameErrors(*(column[order.argsort()] for column in concatenate(parts)))
    residual = _residuals(student, frames, against)
    extensive = student.metadata.energy_reference == "total"
    return errors._replace(
        energy_spread=mean_energy_errors(residual, frames.sizes, extensive=extensive)
    )


def measure_domain(
    student: ForceField, frames: Frames, *, device: torch.device | str = "cpu"
) -> FeatureStatistics:
    """Return how the features of frames are distributed, element by element.

    Of many frames evenly spaced ones are taken, about `DOMAIN_ATOMS` atoms in all.

    Args:
        student: The model; left in the mode it was in.
        frames: What it was trained on.
        device: Where the model is.
    """
    stride = max(1, int(frames.sizes.sum()) // DOMAIN_ATOMS)
    chosen = torch.arange(0, len(frames), stride).split(DOMAIN_BATCH)
    graphs = (frames.batch(part, device=device).graph for part in chosen)
    return measure_features(student, graphs)


def _batch_errors(
    prediction: Prediction, batch: Batch, head: FeatureHead | None, against: Against
) -> FrameErrors:
    graph, labels, teacher = batch.graph, batch.labels, batch.teacher
    energy, forces = labels.energy, labels.forces
    if against == "teacher":
        assert teacher is not None, "the caller checks that there are teacher labels"
        energy, forces = teacher.energy, teacher.forces
    statistics = force_statistics(prediction.forces, forces, labels.free, graph)
    nothing = torch.full_like(statistics[0], torch.nan)
    feature_error, cosine = nothing, nothing
    if head is not None and teacher is not None and teacher.node_features.shape[2]:
        features = head(invariants(prediction), invariants(teacher))
        feature_error, cosine = feature_statistics(
            features.student, features.teacher, graph
        )
    columns: list[Tensor] = [
        prediction.energy - energy,
        nothing,
        torch.bincount(graph.batch, minlength=graph.n_structures),
        statistics[0],
        statistics[1],
        statistics[2],
        statistics[3],
        feature_error,
        cosine,
    ]
    return FrameErrors(*(column.cpu() for column in columns))


def _residuals(student: ForceField, frames: Frames, against: Against) -> Tensor:
    references = student.scale.element_references
    residuals = []
    for structure in frames.structures:
        source = structure.teacher if against == "teacher" else structure
        assert source is not None
        offset = sum(references.get(int(z), 0.0) for z in structure.atoms.numbers)
        residuals.append(source.energy - offset)
    return torch.tensor(residuals, dtype=torch.float64)


def _is_relaxed(frame: LabelledStructure) -> bool:
    forces = frame.forces[frame.free]
    return bool((np.linalg.norm(forces, axis=1) <= RELAXED_FMAX).all())


def _group(errors: FrameErrors, chosen: Tensor) -> Metrics | None:
    return summarize(errors, chosen) if bool(chosen.any()) else None


def _why_no_embedding(frames: Frames, head: FeatureHead | None) -> str | None:
    if frames.n_features is None:
        return "the dataset has no teacher features"
    if head is None:
        return "the linear head P is not at hand; give --head RUN/feature_head.pt"
    return None


METRICS = {
    "n_frames": ("frames", "frames", "{:d}"),
    "energy_mae_meV": ("E, meV", "E\nmeV", "{:.1f}"),
    "energy_mae_meV_per_atom": ("E, meV/atom", "E\nmeV/at", "{:.2f}"),
    "mean_energy_baseline_meV_per_atom": (
        "mean E, meV/atom",
        "mean E\nmeV/at",
        "{:.1f}",
    ),
    "force_mae_meV_per_A": ("F, meV/Å", "F\nmeV/Å", "{:.1f}"),
    "zero_force_baseline_meV_per_A": ("F = 0, meV/Å", "F = 0\nmeV/Å", "{:.1f}"),
    "efwt_percent": ("accurate, %", "accurate\n%", "{:.1f}"),
    "embedding_mae": ("features, MAE", "features\nMAE", "{:.3f}"),
    "embedding_cosine": ("features, cosine", "features\ncosine", "{:.3f}"),
}
"""Measures by key: title, title for a narrow screen, and how to print them."""
LEGEND = (
    f"accurate: energy within {1e3 * EFWT_ENERGY_eV:.0f} meV and every force component "
    f"within {1e3 * EFWT_FORCE:.0f} meV/Å; mean E and F = 0: errors of the mean energy "
    "and of zero forces"
)
"""What the titles mean."""


def metric_rows(found: Evaluation) -> list[tuple[str, ...]]:
    """Return one row of cells per group of frames: all, relaxed or not, every kind.

    Kinds say how frames were made: those along a relaxation are seldom relaxed.
    """
    groups = {"all": found.all, "relaxed": found.relaxed, "unrelaxed": found.unrelaxed}
    groups |= {f"kind: {kind}": group for kind, group in found.kinds.items()}
    rows = []
    for name, group in groups.items():
        if group is None:
            continue
        values = group.as_dict()
        cells = [
            "–" if values[key] is None else form.format(values[key])
            for key, (_, _, form) in METRICS.items()
        ]
        rows.append((name, *cells))
    return rows
