"""Measure a model on labelled frames: all, relaxed and unrelaxed apart, every kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from crack_md.data.batches import Batch
from crack_md.data.dataset import LabelledStructure
from crack_md.models.base import Prediction, invariants
from crack_md.models.force_field import ForceField
from crack_md.training.frames import Frames
from crack_md.training.heads import FeatureHead
from crack_md.training.metrics import (
    FrameErrors,
    Metrics,
    concatenate,
    feature_statistics,
    force_statistics,
    mean_energy_errors,
    summarize,
)

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
) -> Evaluation:
    """Return the errors of the student on all frames.

    Args:
        student: The model; left in the mode it was in.
        frames: Labelled frames with graphs of the student's neighbor rule.
        head: P of the feature losses; without it there are no embedding metrics.
        against: The labels of the dataset, or those of the teacher.
        batch_size: Frames per forward pass.
        device: Where the student is.
    """
    errors = frame_errors(
        student,
        frames,
        head=head,
        against=against,
        batch_size=batch_size,
        device=device,
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
    student.train(was_training)
    errors = FrameErrors(*(column[order.argsort()] for column in concatenate(parts)))
    residual = _residuals(student, frames, against)
    extensive = student.metadata.energy_reference == "total"
    return errors._replace(
        energy_spread=mean_energy_errors(residual, frames.sizes, extensive=extensive)
    )


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
