"""The study file: a base recipe, and what each method changes in it.

A recipe is a YAML file, a mapping, or a list of both that are merged in order. Files
lie beside the study file, or below it; all other paths are taken from the working
directory, as everywhere.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from crack_md.errors import ConfigError
from crack_md.section import Section
from crack_md.training.config_file import assign, one_line, read_tree

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


class StudyConfig(Section):
    """One study, every file that it names read in."""

    base: dict[str, Any]
    """The training recipe that all methods share."""
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    """By name, what a method changes in the base: mappings are merged, lists and single
    values replaced."""
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
    try:
        return StudyConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {one_line(error)}") from None


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with the changes: mappings merged, all else replaced."""
    tree = dict(base)
    for key, value in changes.items():
        before = tree.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            tree[key] = merged(before, value)
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
            tree = merged(tree, _recipe(part, path, key))
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
