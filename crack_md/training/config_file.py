"""Read and write the training configuration: YAML, overrides, one-line errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from crack_md.errors import ConfigError
from crack_md.input_files import parse_yaml, read_yaml
from crack_md.training.config import TrainConfig


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return the checked configuration.

    Args:
        path: A YAML file.
        overrides: ``section.key=value`` assignments; the value is read as YAML, and a
            number in the path is a position in a list.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    tree = read_tree(path)
    for assignment in overrides:
        assign(tree, assignment)
    return check_config(tree, source=str(path))


def check_config(tree: Any, *, source: str) -> TrainConfig:
    """Return the configuration, or raise one ConfigError that names every bad key."""
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {one_line(error)}") from None


def dump_config(config: TrainConfig) -> str:
    """Return the resolved configuration as YAML, every default spelled out."""
    tree = config.model_dump(mode="json")
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def read_tree(
    path: Path,
    *,
    what: str = "a training YAML",
    expected: str = "sections student, data, losses, optimizer and run",
) -> dict[str, Any]:
    """Return the content of a YAML file that is a mapping.

    Raises:
        ConfigError: The file is missing, not YAML, or something else.
    """
    tree = read_yaml(path, what=what)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected {expected}, found {type(tree).__name__}")
    return tree


def assign(tree: Any, assignment: str) -> None:
    """Change one place of a tree, as ``--set section.key=value`` says.

    Raises:
        ConfigError: There is no such place, or the value is not YAML.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"--set {assignment}: expected section.key=value, e.g. optimizer.lr=1e-4"
        )
    value = parse_yaml(text, where=f"--set {key}")
    *parents, last = key.strip().split(".")
    place = tree
    try:
        for name in parents:
            if isinstance(place, dict):
                place = place.setdefault(name, {})
            else:
                place = place[int(name)]
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (TypeError, ValueError, IndexError, AttributeError):
        raise ConfigError(f"--set {assignment}: there is no place '{key}'") from None


def one_line(error: ValidationError) -> str:
    """Return every bad key with its path and what was found there."""
    problems = []
    places = [item["loc"] for item in error.errors()]
    for item in error.errors():
        place = item["loc"]
        if any(other[: len(place)] == place != other for other in places):
            continue  # a consequence of the error inside it
        path = ".".join(str(part) for part in item["loc"]) or "the file"
        given = item["input"]
        shown = "" if isinstance(given, Mapping | list) else f" (found {given!r})"
        problems.append(f"{path}: {item['msg']}{shown}")
    return "; ".join(problems)
