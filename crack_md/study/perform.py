"""One run of a study: its data, its training, and what was measured of it.

The head P of a run exists only where a loss compares features, and is as good as its
training. The probe is the best P there is: least squares on training frames, with the
student as it stands. So students without such a loss are measured with the same rule.
"""

import dataclasses
import json
import traceback
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.data.dataset import LabelledDataset, LabelledStructure, read_dataset
from crack_md.errors import DataError
from crack_md.files import write_text
from crack_md.models.checkpoint import load_model
from crack_md.models.force_field import ForceField, invariants
from crack_md.models.teachers import load_teacher
from crack_md.study.adsorption import adsorption_errors
from crack_md.study.on_policy import first_recipe
from crack_md.study.plan import EvaluateConfig, Run, StudentRun, TeacherRun
from crack_md.training.config import OnlineTeacher, TrainConfig, dump_config
from crack_md.training.data.frames import Frames
from crack_md.training.data.source import TrainingData, read_training_data, usable
from crack_md.training.evaluation import evaluate, known_frames
from crack_md.training.loop.build import build_frames
from crack_md.training.loop.heads import FeatureHead, read_head
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from crack_md.training.on_policy.config import LoopConfig
from crack_md.training.on_policy.folder import LoopFolder
from crack_md.training.on_policy.rounds import rows_of, run_loop

MAX_FRAMES = 6
"""Sets of frames with graphs that are kept: training, validation and evaluation of two
architectures."""
LABEL_CHUNK = 16
"""Frames that an online teacher is asked about at a time."""


class DataCache:
    """Files by path, training data by what chooses it, graphs by rule and frames.

    Reading thousands of frames and building their graphs takes as long as hundreds of
    steps of a small student.
    """

    def __init__(self) -> None:
        self._datasets: dict[Path, LabelledDataset] = {}
        self._training: dict[str, TrainingData] = {}
        self._frames: dict[Hashable, Frames] = {}
        self._labelled: dict[str, tuple[LabelledStructure, ...]] = {}

    def dataset(self, path: Path) -> LabelledDataset:
        """Return a labelled set."""
        if path not in self._datasets:
            self._datasets[path] = read_dataset(path)
        return self._datasets[path]

    def training_data(self, config: TrainConfig) -> TrainingData:
        """Return what `read_training_data` returns."""
        data = config.data
        sampled = data.max_frames is not None or data.validation_frames is not None
        key = json.dumps(
            [
                data.model_dump(mode="json"),
                None if config.teacher is None else config.teacher.model_dump(),
                sorted({label for loss in config.losses for label in loss.reads}),
                config.highest_degree,  # what losses need is checked when data is read
                config.run.seed if sampled else None,
            ]
        )
        if key not in self._training:
            self._training[key] = read_training_data(config, read=self.dataset)
        return self._training[key]

    def frames(
        self, structures: Sequence[LabelledStructure], student: ForceField
    ) -> Frames:
        """Return the structures with graphs of the student's neighbor rule."""
        key = (student.rule, tuple(map(id, structures)))
        if key not in self._frames:
            while len(self._frames) >= MAX_FRAMES:
                self._frames.pop(next(iter(self._frames)))
            self._frames[key] = build_frames(structures, student)
        # the latest goes last; Frames hold their structures, so an id stays theirs
        self._frames[key] = self._frames.pop(key)
        return self._frames[key]

    def evaluation_frames(
        self, wanted: EvaluateConfig, config: TrainConfig, student: ForceField
    ) -> Frames:
        """Return the frames to measure on.

        Frames that a recipe leaves out (leave_out, nearest, largest_force), or whose
        elements the student does not know, are not measured.

        Raises:
            DataError: No frames are left.
        """
        dataset = self.dataset(wanted.path)
        chosen = (
            dataset.structures
            if wanted.split == "all"
            else dataset.select(wanted.split)
        )
        known: Sequence[LabelledStructure] = known_frames(
            student, usable(chosen, config.data)
        )
        if not known:
            raise DataError(
                f"{wanted.path} has no frames of split '{wanted.split}' with elements "
                "that the student knows; choose another evaluate.split or evaluate.path"
            )
        if wanted.max_frames is not None and wanted.max_frames < len(known):
            count = wanted.max_frames
            known = [known[index * len(known) // count] for index in range(count)]
        if config.teacher is not None:
            known = self._asked(known, config.teacher, wanted)
        return self.frames(known, student)

    def _asked(
        self,
        frames: Sequence[LabelledStructure],
        asked: OnlineTeacher,
        wanted: EvaluateConfig,
    ) -> Sequence[LabelledStructure]:
        """Return the frames with labels of the online teacher that students follow."""
        key = f"{asked.spec} {wanted.model_dump_json()} {len(frames)}"
        if key not in self._labelled:
            teacher = load_teacher(asked.spec)
            answers = [
                labels
                for start in range(0, len(frames), LABEL_CHUNK)
                for labels in teacher.predict(
                    [one.atoms for one in frames[start : start + LABEL_CHUNK]]
                )
            ]
            self._labelled[key] = tuple(
                dataclasses.replace(frame, teacher=answer)
                for frame, answer in zip(frames, answers, strict=True)
            )
        return self._labelled[key]


PROBE_FRAMES = 400
"""Some thousand atoms: far more than the channels of a student."""


def fit_probe(
    student: ForceField, frames: Frames, *, batch_size: int = 32
) -> FeatureHead | None:
    """Return the linear map from student to teacher features, fitted to these frames.

    Teacher features are shifted by the mean of every channel and divided by one spread,
    so that 1 is the size of what is to be explained.

    Args:
        student: The model; left in the mode it was in.
        frames: Of the training set; `PROBE_FRAMES` evenly spaced ones are used.
        batch_size: Frames per forward pass.

    Returns:
        None where the frames have no teacher features.
    """
    features = frames.features
    if features is None:
        return None
    atoms = _atoms(student, frames, batch_size)
    mean = features.mean(dim=0)
    std = (features - mean).square().mean().sqrt().item() or 1.0
    head = FeatureHead(
        atoms.student.shape[1], atoms.teacher.shape[1], mean=mean, std=std
    )
    # float64 and a driver for dependent columns: some channels of a student are dead
    best = torch.linalg.lstsq(
        atoms.student.double(), ((atoms.teacher - mean) / std).double(), driver="gelsd"
    ).solution
    with torch.no_grad():
        head.linear.weight.copy_(best.T)
    return head


def unexplained(
    student: ForceField, frames: Frames, probe: FeatureHead, *, batch_size: int = 32
) -> float:
    """Return the share of the teacher's variance within elements that a probe misses.

    Most of a feature often says which element an atom is, which any student knows. Here
    1 is what the mean of every element reaches, and 0 is the teacher.
    """
    atoms = _atoms(student, frames, batch_size)
    with torch.no_grad():
        teacher, mapped = probe(atoms.student, atoms.teacher)
    missed = (teacher - mapped).square().sum()
    elements, element = atoms.numbers.unique(return_inverse=True)
    sums = teacher.new_zeros(len(elements), teacher.shape[1])
    sums.index_add_(0, element, teacher)
    means = sums / torch.bincount(element).unsqueeze(1)
    within = (teacher - means[element]).square().sum()
    return (missed / within.clamp_min(1e-12)).item()


class _Atoms(NamedTuple):
    student: Float[Tensor, "atom student_channel"]
    teacher: Float[Tensor, "atom teacher_channel"]
    numbers: Int[Tensor, " atom"]


def _atoms(student: ForceField, frames: Frames, batch_size: int) -> _Atoms:
    """Return the invariant features of all atoms of evenly spaced frames."""
    count = min(PROBE_FRAMES, len(frames))
    chosen = torch.arange(count) * len(frames) // count
    was_training = student.training
    student.eval()
    parts = []
    with torch.no_grad():
        for part in chosen.split(batch_size):
            batch = frames.batch(part)
            assert batch.teacher is not None, "frames with features have a teacher"
            parts.append(
                _Atoms(
                    invariants(student(batch.graph)).float(),
                    invariants(batch.teacher),
                    batch.graph.atomic_numbers,
                )
            )
    student.train(was_training)
    return _Atoms(*(torch.cat(column) for column in zip(*parts, strict=True)))


LAST_RECORDS = 20
"""Logged steps that final losses are averaged over."""
NOT_LOSSES = frozenset(
    {"step", "elapsed_s", "lr", "gradient_norm", "skipped", "step_s"}
)


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended."""

    status: Literal["done", "failed", "stopped"]
    result: dict[str, Any] | None = None
    error: str | None = None
    stopped_by: str | None = None
    """Name of the signal."""


def attempt(run: Run, cache: DataCache) -> RunOutcome:
    """Do a run; what goes wrong is an outcome, so that a study goes on."""
    try:
        if isinstance(run, TeacherRun):
            head = read_head(None, beside=run.checkpoint)
            result = _measure(load_model(run.checkpoint), run, cache, head)
        else:
            if run.loop is None:
                trained = _train(run, cache)
            else:
                trained = _train_rounds(run.config, run.loop)
            if isinstance(trained, str):
                return RunOutcome("stopped", stopped_by=trained)
            result = _learnt(run, trained, cache)
    except Exception as error:
        return fail(run, error)
    result |= {"evaluate": run.evaluate.model_dump(mode="json")}
    write_text(run.result_file, json.dumps(result, indent=2))
    run.error_file.unlink(missing_ok=True)
    return RunOutcome("done", result=result)


def fail(run: Run, error: Exception) -> RunOutcome:
    """Write down why a run has no result."""
    line = " ".join(str(error).split()) or type(error).__name__
    text = "".join(traceback.format_exception(error))
    run.error_file.parent.mkdir(parents=True, exist_ok=True)
    content = {"error": line, "traceback": text}
    write_text(run.error_file, json.dumps(content, indent=2))
    return RunOutcome("failed", error=line)


class _Trained(NamedTuple):
    """What a run has left behind."""

    student: Path
    last: Path
    """Folder of the training, the last one of an on-policy run."""
    wall_s: float
    facts: dict[str, Any]
    """What its result says besides."""


def _train(run: StudentRun, cache: DataCache) -> _Trained | str:
    """Train a student; return what it left, or the signal that stopped it."""
    summary = train(run.config, quiet=True, read=cache.training_data, pack=cache.frames)
    if summary.stopped_by is not None:
        return summary.stopped_by
    student = RunFolder(run.folder, writes=False).student_file
    return _Trained(student, run.folder, summary.elapsed_s, {"steps": summary.step})


def _train_rounds(config: TrainConfig, loop: LoopConfig) -> _Trained | str:
    """Train a student in rounds, or go on; return the signal where one stopped it."""
    loop.folder.mkdir(parents=True, exist_ok=True)
    write_text(loop.student, dump_config(first_recipe(config, loop)))
    stopped_by = run_loop(loop, quiet=True)
    if stopped_by is not None:
        return stopped_by
    folder = LoopFolder(loop.folder)
    rows = rows_of(folder, loop.rounds)
    stages = ("train_s", "explore_s", "label_s")
    facts = {
        "steps": sum(row["steps"] for row in rows),
        "n_own_labels": sum(row["n_labelled"] or 0 for row in rows),
        "n_quarantined": sum(row["n_quarantined"] or 0 for row in rows),
    }
    return _Trained(
        student=folder.path / "student.pt",
        last=folder.round(loop.rounds).member(loop.seed),
        wall_s=sum(row[stage] or 0.0 for row in rows for stage in stages),
        facts=facts,
    )


def _learnt(run: StudentRun, trained: _Trained, cache: DataCache) -> dict[str, Any]:
    student = load_model(trained.student)
    last = RunFolder(trained.last, writes=False)
    head = read_head(None, beside=last.student_file)
    found = _measure(student, run, cache, head)
    if run.evaluate.adsorption is not None:
        errors = adsorption_errors(trained.student, run.evaluate.adsorption)
        found["adsorption"] = errors
    return {
        "method": run.method,
        "budget": run.budget,
        "seed": run.seed,
        "wall_s": round(trained.wall_s, 3),
        **trained.facts,
        **_logged(last.metrics()),
        **found,
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
