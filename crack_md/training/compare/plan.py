"""Which runs a study consists of."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crack_md.errors import ConfigError
from crack_md.training.compare.config import (
    Budget,
    EvaluateConfig,
    StudyConfig,
    merged,
)
from crack_md.training.config import TrainConfig
from crack_md.training.config_file import check_config
from crack_md.training.run import RunFolder
from crack_md.training.run_config import RunConfig


@dataclass(frozen=True)
class StudentRun:
    """One student: a method with a seed and a budget."""

    method: str
    budget: str
    seed: int
    config: TrainConfig
    evaluate: EvaluateConfig

    @property
    def name(self) -> str:
        """Return what progress lines call it."""
        return f"{self.method} {self.budget} seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Return where it runs."""
        return self.config.run.folder

    @property
    def result_file(self) -> Path:
        """Return where its result lies once it has ended."""
        return self.folder / "result.json"

    @property
    def error_file(self) -> Path:
        """Return where the reason of a failure lies."""
        return self.folder / "error.json"


@dataclass(frozen=True)
class TeacherRun:
    """The teacher on the frames that students are measured on; nothing is trained."""

    checkpoint: Path
    config: TrainConfig
    evaluate: EvaluateConfig
    folder: Path

    name = "teacher"

    @property
    def result_file(self) -> Path:
        """Return where its result lies."""
        return self.folder / "teacher.json"

    @property
    def error_file(self) -> Path:
        """Return where the reason of a failure lies."""
        return self.folder / "teacher-error.json"


Run = StudentRun | TeacherRun


@dataclass(frozen=True)
class Plan:
    """All runs of a study, in the order in which they are done."""

    study: StudyConfig
    students: tuple[StudentRun, ...]
    teacher: TeacherRun | None

    @property
    def runs(self) -> tuple[Run, ...]:
        """Return everything that gets a result."""
        first: tuple[Run, ...] = () if self.teacher is None else (self.teacher,)
        return (*first, *self.students)

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods in the order of the file."""
        return tuple(dict.fromkeys(run.method for run in self.students))

    @property
    def budgets(self) -> tuple[str, ...]:
        """Return the budgets in the order of the file."""
        return tuple(dict.fromkeys(run.budget for run in self.students))


def plan_study(
    study: StudyConfig, *, only: Collection[str] = (), source: str = "study"
) -> Plan:
    """Return the runs, seed by seed, so that an unfinished study compares all methods.

    Args:
        study: The checked file.
        only: Restrict to these methods.
        source: What to call the file in errors.

    Raises:
        ConfigError: A method does not exist, or makes no valid training recipe.
    """
    unknown = sorted(set(only) - set(study.methods))
    if unknown:
        raise ConfigError(
            f"{source} has no method '{unknown[0]}'; it has {', '.join(study.methods)}"
        )
    methods = [name for name in study.methods if not only or name in only]
    students = tuple(
        _student(study, method, budget, seed, source)
        for seed in study.seeds
        for budget in study.budgets or (None,)
        for method in methods
    )
    return Plan(study, students, _teacher(study, students[0].config))


def is_done(run: Run) -> bool:
    """Return whether the run has a result of what it would measure now."""
    result = read_json(run.result_file)
    return result is not None and result["evaluate"] == run.evaluate.model_dump(
        mode="json"
    )


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a result file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def check_folders(plan: Plan) -> None:
    """Refuse to mix runs of different settings in one table.

    Raises:
        ConfigError: A run folder holds a run of other settings.
    """
    for run in plan.students:
        RunFolder(run.folder, writes=False).open(run.config)


def _student(
    study: StudyConfig, method: str, budget: Budget | None, seed: int, source: str
) -> StudentRun:
    tree = merged(study.base, study.methods[method])
    if budget is not None:
        tree = merged(tree, budget.changes())
    place = str(study.folder / method)
    tree = merged(tree, {"run": {"seed": seed, "folder": place}})
    config = check_config(tree, source=f"{source}, method {method}")
    name = _budget_name(config)
    run = config.run.model_copy(
        update={"folder": study.folder / method / name / f"seed-{seed}"}
    )
    config = config.model_copy(update={"run": RunConfig(**run.model_dump())})
    return StudentRun(method, name, seed, config, study.evaluate)


def _budget_name(config: TrainConfig) -> str:
    parts = [
        f"{value:.12g}-{unit}"
        for value, unit in (
            (config.run.max_steps, "steps"),
            (config.run.max_seconds, "s"),
            (config.data.max_frames, "frames"),
        )
        if value is not None
    ]
    return "-".join(parts)


def _teacher(study: StudyConfig, config: TrainConfig) -> TeacherRun | None:
    if study.teacher_checkpoint is None:
        return None
    return TeacherRun(study.teacher_checkpoint, config, study.evaluate, study.folder)
