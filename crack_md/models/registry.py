"""The models that come with the package, by name.

A packaged model has a dated name, ``noble-2026-11``, whose weights never change, so
that a result can say what it was computed with. ``default``, and ``accurate`` where
there is a second model, are aliases: `resources/aliases.json` says which dated name
each stands for in this release. A lone model without that file is the default.
"""

import json
from importlib.resources import files
from pathlib import Path

from crack_md.errors import CheckpointError

DEFAULT = "default"
_RESOURCES = Path(str(files("crack_md") / "resources"))
_ALIASES = "aliases.json"


def aliases() -> dict[str, str]:
    """Return the dated name of every alias.

    Raises:
        CheckpointError: the table is damaged, or names a model that is not there.
    """
    path = _RESOURCES / _ALIASES
    dated = [file.stem for file in sorted(_RESOURCES.glob("*.pt"))]
    if not path.is_file():
        return {DEFAULT: dated[0]} if len(dated) == 1 else {}
    try:
        table = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot read '{path}': {error}; install crack-md again"
        ) from error
    for alias, name in table.items():
        if name not in dated:
            raise CheckpointError(
                f"'{path}' says that '{alias}' is '{name}', which is not there; "
                f"packaged are: {', '.join(dated) or 'none'}"
            )
    return table


def model_names() -> list[str]:
    """Return the names that `load_model` knows, aliases among them."""
    return sorted({*aliases(), *(path.stem for path in _RESOURCES.glob("*.pt"))})


def dated_name(path_or_name: str | Path) -> str | None:
    """Return the name of a packaged model that never changes; None for a file.

    A bare name means a packaged model; write ``./default`` for a file of that name.
    """
    name = str(path_or_name)
    if "/" in name:
        return None
    name = aliases().get(name, name)
    return name if (_RESOURCES / f"{name}.pt").is_file() else None


def model_path(path_or_name: str | Path) -> Path:
    """Return the file of a packaged model, or the path itself.

    Raises:
        CheckpointError: "default" was asked for and the installation has none.
    """
    name = dated_name(path_or_name)
    if name is not None:
        return _RESOURCES / f"{name}.pt"
    if str(path_or_name) == DEFAULT:
        n_models = len(list(_RESOURCES.glob("*.pt")))
        raise CheckpointError(
            f"this installation of crack-md has {n_models} packaged models and none "
            "that is called the default; name a model file instead of 'default'"
        )
    return Path(path_or_name)
