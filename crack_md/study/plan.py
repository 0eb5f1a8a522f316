"""The study file, and the runs that a study consists of.

A recipe is a YAML file, a mapping, or a list of both that are merged in order. Files
lie beside the study file, or below it; all other paths are taken from the working
directory, as everywhere.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from crack_md.errors import ConfigError
from crack_md.files import read_json
from crack_md.input_files import Section
from crack_md.study.on_policy import plan_loop
from crack_md.training.config import (
    RunConfig,
    TrainConfig,
    assign,
    check_config,
    check_section,
    read_tree,
)
from crack_md.training.loop.run import RunFolder
from crack_md.training.on_policy.config import LoopConfig
from crack_md.workflows.screening.reader import read_screening

METHOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class Budget(Section):
    """What every method may spend: one point of a learning curve."""

    max_steps: int | None = Field(default=None, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    max_frames: int | None = Field(default=None, ge=1)
    """Of the training set; the other two then stay those of the base."""

    @model_validator(mode="after")
    def _is_one(self) -> "Budget":
        if not self.model_fields_set:
            raise ValueError("give max_steps, max_seconds or max_frames")
        return self

    def changes(self) -> dict[str, Any]:
        """Return what this budget sets in a training recipe."""
        tree: dict[str, Any] = {}
        if self.max_steps is not None or self.max_seconds is not None:
            ends = {"max_steps": self.max_steps, "max_seconds": self.max_seconds}
            tree["run"] = ends
        if self.max_frames is not None:
            tree["data"] = {"max_frames": self.max_frames}
        return tree


class EvaluateConfig(Section):
    """The frames that every student and the teacher are measured on."""

    path: Path
    split: Literal["train", "val", "test", "all"] = "test"
    max_frames: int | None = Field(default=None, ge=1)
    """Evenly spaced ones of these."""
    batch_size: int = Field(default=32, ge=1)
    adsorption: Path | None = None
    """Results of ``crack-md screen`` by the source of the labels: students relax on
    from its structures, and their adsorption energies are compared with its own."""


class StudyConfig(Section):
    """One study, every file that it names read in."""

    base: dict[str, Any]
    """The training recipe that all methods share."""
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    """By name, what a method changes in the base: mappings are merged, lists and single
    values replaced. With a section ``on_policy``, which is that of a loop
    (``crack-md distil``), the budget is shared: see `plan_loop`."""
    seeds: tuple[int, ...] = Field(min_length=1)
    folder: Path
    evaluate: EvaluateConfig
    budgets: tuple[Budget, ...] = ()
    """Each method at each of these; without any, at the budget of the base."""
    workers: int = Field(default=1, ge=1)
    """Runs at a time, one thread each; with 1 a run has all threads."""
    reference: str | None = None
    """The method that the others are compared with, seed by seed; by default the first
    one."""
    teacher_checkpoint: Path | None = None
    """A model that gets a row of its own."""
    title: str | None = None

    @field_validator("methods")
    @classmethod
    def _are_folder_names(cls, methods: dict[str, Any]) -> dict[str, Any]:
        for name in methods:
            if not METHOD_NAME.fullmatch(name):
                raise ValueError(
                    f"'{name}' is no method name: letters, digits and _ . + - only"
                )
        return methods

    @field_validator("seeds")
    @classmethod
    def _are_different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed occurs twice")
        return seeds

    @model_validator(mode="after")
    def _reference_is_a_method(self) -> "StudyConfig":
        if self.reference is not None and self.reference not in self.methods:
            raise ValueError(f"reference '{self.reference}' is none of the methods")
        return self


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Return the checked study.

    Args:
        path: A YAML file.
        overrides: ``key=value`` assignments, e.g. ``seeds=[1]``,
            ``base.run.max_steps=50`` or ``methods.crack.losses.0.weight=1``.

    Raises:
        ConfigError: A file cannot be read, or a key or value is wrong.
    """
    tree = read_tree(
        path,
        what="a study YAML",
        expected="keys base, methods, seeds, folder and evaluate",
    )
    if "base" in tree:
        tree["base"] = _recipe(tree["base"], path, "base")
    if "methods" in tree:
        tree["methods"] = _methods(tree["methods"], path)
    for assignment in overrides:
        assign(tree, assignment)
    return check_section(StudyConfig, tree, source=str(path))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with the changes: mappings merged, all else replaced."""
    tree = dict(base)
    for key, value in changes.items():
        before = tree.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            tree[key] = merge(before, value)
        else:
            tree[key] = value
    return tree


def _methods(given: Any, path: Path) -> dict[str, Any]:
    if isinstance(given, list):  # files alone: their names are the methods'
        given = {Path(str(entry)).stem: entry for entry in given}
    if not isinstance(given, dict):
        raise ConfigError(
            f"{path}: methods: expected names with files or changes, or a list of "
            f"files, found {type(given).__name__}"
        )
    return {
        str(name): _recipe(entry, path, f"methods.{name}")
        for name, entry in given.items()
    }


def _recipe(entry: Any, path: Path, key: str) -> dict[str, Any]:
    if isinstance(entry, Mapping):
        return dict(entry)
    if isinstance(entry, list):
        tree: dict[str, Any] = {}
        for part in entry:
            tree = merge(tree, _recipe(part, path, key))
        return tree
    if not isinstance(entry, str):
        raise ConfigError(
            f"{path}: {key}: expected a YAML file, a mapping or a list of both, "
            f"found {entry!r}"
        )
    try:
        return read_tree(path.parent / entry, expected="sections of a training recipe")
    except ConfigError as error:
        raise ConfigError(f"{path}: {key}: {error}") from None


@dataclass(frozen=True)
class StudentRun:
    """One student: a method with a seed and a budget."""

    method: str
    budget: str
    seed: int
    config: TrainConfig
    evaluate: EvaluateConfig
    loop: LoopConfig | None = None
    """Where some of its frames are what the student itself comes to."""

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
    result = read_json(run.result_file, may_miss=True)
    if result is None:
        return False
    measured = {
        key: value for key, value in result["evaluate"].items() if value is not None
    }
    return measured == run.evaluate.model_dump(mode="json", exclude_none=True)


def check_folders(plan: Plan) -> None:
    """Refuse to mix runs of different settings in one table.

    Raises:
        ConfigError: A run folder holds a run of other settings.
        DataError: There is no finished screening where ``evaluate.adsorption`` says.
    """
    if plan.study.evaluate.adsorption is not None:
        read_screening(plan.study.evaluate.adsorption)  # hours before it is needed
    for run in plan.students:
        RunFolder(run.folder, writes=False).open(run.config)


def _student(
    study: StudyConfig, method: str, budget: Budget | None, seed: int, source: str
) -> StudentRun:
    tree = merge(study.base, study.methods[method])
    if budget is not None:
        tree = merge(tree, budget.changes())
    place = str(study.folder / method)
    tree = merge(tree, {"run": {"seed": seed, "folder": place}})
    on_policy = tree.pop("on_policy", None)
    where = f"{source}, method {method}"
    config = check_config(tree, source=where)
    name = _budget_name(config)
    run = config.run.model_copy(
        update={"folder": study.folder / method / name / f"seed-{seed}"}
    )
    config = config.model_copy(update={"run": RunConfig(**run.model_dump())})
    loop = None if on_policy is None else plan_loop(config, on_policy, source=where)
    return StudentRun(method, name, seed, config, study.evaluate, loop)


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
