"""Do one run of a study and write down what came out."""

import json
import traceback
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from crack_md.models.checkpoint import load_model
from crack_md.models.force_field import ForceField
from crack_md.training.compare.cache import DataCache
from crack_md.training.compare.plan import Run, StudentRun, TeacherRun
from crack_md.training.compare.probe import fit_probe, unexplained
from crack_md.training.evaluate import evaluate
from crack_md.training.heads import FeatureHead, read_head
from crack_md.training.run import RunFolder, replacing
from crack_md.training.summary import TrainingSummary
from crack_md.training.train import train

LAST_RECORDS = 20
"""Logged steps that final losses are averaged over."""
NOT_LOSSES = frozenset(
    {"step", "elapsed_s", "lr", "gradient_norm", "skipped", "step_s"}
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Literal["done", "failed", "stopped"]
    result: dict[str, Any] | None = None
    error: str | None = None
    stopped_by: str | None = None
    """Name of the signal."""


def attempt(run: Run, cache: DataCache) -> Outcome:
    """Do a run; what goes wrong is an outcome, so that a study goes on."""
    try:
        if isinstance(run, TeacherRun):
            head = read_head(None, beside=run.checkpoint)
            result = _measure(load_model(run.checkpoint), run, cache, head)
        else:
            summary = train(
                run.config, quiet=True, read=cache.training_data, pack=cache.frames
            )
            if summary.stopped_by is not None:
                return Outcome("stopped", stopped_by=summary.stopped_by)
            result = _learnt(run, summary, cache)
    except Exception as error:
        return fail(run, error)
    result |= {"evaluate": run.evaluate.model_dump(mode="json")}
    _write(run.result_file, result)
    run.error_file.unlink(missing_ok=True)
    return Outcome("done", result=result)


def fail(run: Run, error: Exception) -> Outcome:
    """Write down why a run has no result."""
    line = " ".join(str(error).split()) or type(error).__name__
    told = "".join(traceback.format_exception(error))
    run.error_file.parent.mkdir(parents=True, exist_ok=True)
    _write(run.error_file, {"error": line, "traceback": told})
    return Outcome("failed", error=line)


def _learnt(
    run: StudentRun, summary: TrainingSummary, cache: DataCache
) -> dict[str, Any]:
    folder = RunFolder(run.folder, writes=False)
    student = load_model(folder.student_file)
    head = read_head(None, beside=folder.student_file)
    return {
        "method": run.method,
        "budget": run.budget,
        "seed": run.seed,
        "steps": summary.step,
        "wall_s": round(summary.elapsed_s, 3),
        **_logged(folder.metrics()),
        **_measure(student, run, cache, head),
    }


def _logged(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the cost of a step and the losses at the end of training."""
    steps = [record for record in records if "step_s" in record]
    last = steps[-LAST_RECORDS:]
    names = [key for key in (last[-1] if last else {}) if key not in NOT_LOSSES]
    return {
        "step_ms": 1e3 * median(r["step_s"] for r in steps) if steps else None,
        "losses": {name: fmean(record[name] for record in last) for name in names},
    }


def _measure(
    model: ForceField, run: Run, cache: DataCache, head: FeatureHead | None
) -> dict[str, Any]:
    """Return the errors of a model against labels, and against the teacher.

    Embedding errors of the first are those of the fitted probe, the same rule for all;
    those of the second are those of the run's own head P.
    """
    frames = cache.evaluation_frames(run.evaluate, run.config, model)
    data = cache.training_data(run.config)
    training = data.sample or data.train
    size = run.evaluate.batch_size
    probe = fit_probe(model, cache.frames(training, model), batch_size=size)
    against_labels = evaluate(model, frames, head=probe, batch_size=size)
    found: dict[str, Any] = {
        "n_weights": sum(weight.numel() for weight in model.parameters()),
        "labels": against_labels.as_dict(),
        "teacher": None,
    }
    if probe is not None and frames.features is not None:
        missed = unexplained(model, frames, probe, batch_size=size)
        found["embedding_unexplained"] = missed
    if all(one.teacher is not None for one in frames.structures):
        found["teacher"] = evaluate(
            model, frames, head=head, against="teacher", batch_size=size
        ).as_dict()
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
