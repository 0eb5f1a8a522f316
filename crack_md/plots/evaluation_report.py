"""One self-contained page about a model: errors, figures, and where it comes from."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crack_md import __version__
from crack_md.errors import MissingDependencyError
from crack_md.plots.evaluation import (
    draw_elements,
    draw_embedding,
    draw_parity,
    draw_training,
)
from crack_md.plots.style import PageSection, style, write_page
from crack_md.training.evaluation import LEGEND, METRICS, Evaluation, metric_rows
from crack_md.training.inspection import (
    Inspection,
    embedding_map,
    errors_per_element,
    worst_frames,
)


@dataclass(frozen=True)
class Subject:
    """What the page is about."""

    title: str
    command: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    metrics: Sequence[dict[str, Any]] = ()
    """Records of the training run, if they are at hand."""


def write_report(
    folder: Path, subject: Subject, found: Evaluation, seen: Inspection
) -> Path:
    """Write ``report.html`` and its figures as PNG files; return the page.

    Raises:
        DataError: The folder cannot be written.
    """
    with style():
        return write_page(
            folder,
            _sections(subject, found, seen),
            title=subject.title,
            subtitle=f"{found.all.n_frames} frames, errors against the {found.against}",
            option="--report",
        )


def _sections(
    subject: Subject, found: Evaluation, seen: Inspection
) -> tuple[PageSection, ...]:
    errors = PageSection(
        "Errors",
        f"{LEGEND}. Relaxed frames feel at most 0.05 eV/Å, so that every model looks "
        "good on their forces.",
        ("group", *(title for title, _, _ in METRICS.values())),
        tuple(metric_rows(found)),
    )
    parity = PageSection("Parity", "", figure=draw_parity(seen))
    return (
        errors,
        parity,
        _elements(seen),
        _embedding(found, seen),
        _training(subject),
        _worst(seen),
        _provenance(subject),
    )


def _elements(seen: Inspection) -> PageSection:
    rows = errors_per_element(seen)
    return PageSection(
        "Elements",
        "Bars: 95 % of resamples of whole frames. Energies are those of the frames "
        "that hold the element.",
        (
            "element",
            "free atoms",
            "F, meV/Å",
            "95 %",
            "F = 0, meV/Å",
            "frames",
            "E, meV/atom",
            "features, cosine",
        ),
        tuple(
            (
                row.symbol,
                f"{row.n_atoms:,}",
                f"{row.force_mae_meV_per_A:.1f}",
                f"{row.low_meV_per_A:.1f} – {row.high_meV_per_A:.1f}",
                f"{row.zero_force_baseline_meV_per_A:.1f}",
                f"{row.n_frames:,}",
                f"{row.energy_mae_meV_per_atom:.2f}",
                "–" if row.embedding_cosine is None else f"{row.embedding_cosine:.3f}",
            )
            for row in rows
        ),
        draw_elements(rows),
    )


def _embedding(found: Evaluation, seen: Inspection) -> PageSection:
    if seen.student is None:
        return PageSection("Embedding", f"Not shown: {found.embedding_skipped}.")
    if len(seen.numbers) < 4:
        return PageSection("Embedding", "Not shown: there are fewer than four atoms.")
    try:
        shown = embedding_map(seen)
    except MissingDependencyError as error:
        return PageSection("Embedding", f"Not shown: {error}.")
    return PageSection(
        "Embedding",
        "Node features of the teacher beside those of the student behind its head P. "
        "The axes of the PCA are the teacher's; t-SNE is fitted to both at once.",
        figure=draw_embedding(shown),
    )


def _training(subject: Subject) -> PageSection:
    if not subject.metrics:
        return PageSection(
            "Training", "Not shown: no metrics.jsonl beside the model; give --run."
        )
    return PageSection("Training", "", figure=draw_training(subject.metrics))


def _worst(seen: Inspection) -> PageSection:
    return PageSection(
        "Worst frames",
        "Largest force error on one free atom.",
        ("group", "kind", "formula", "on", "F error, meV/Å", "E error, meV/atom"),
        tuple(
            (
                frame.group,
                frame.kind,
                frame.formula,
                frame.on,
                f"{frame.largest_force_error_meV_per_A:.0f}",
                f"{frame.energy_error_meV_per_atom:+.1f}",
            )
            for frame in worst_frames(seen)
        ),
    )


def _provenance(subject: Subject) -> PageSection:
    record = dict(subject.provenance)
    data = record.get("data") or {}
    known = {
        "command": subject.command,
        "model, SHA-256": subject.sha256,
        "teacher": record.get("teacher"),
        "teacher, SHA-256": record.get("teacher_sha256"),
        "trained on": data.get("path"),
        "data fingerprint": data.get("fingerprint"),
        "training frames": data.get("n_train"),
        "licence": record.get("licence"),
        "citation": record.get("citation"),
        "crack-md": __version__,
        "torch": version("torch"),
        "Python": platform.python_version(),
    }
    rows = tuple((key, str(value)) for key, value in known.items() if value)
    return PageSection("Provenance", "", ("", ""), rows)
