"""The models that come with the package, by name."""

from importlib.resources import files
from pathlib import Path

from crack_md.errors import CheckpointError

DEFAULT = "default"
_RESOURCES = Path(str(files("crack_md") / "resources"))


def model_names() -> list[str]:
    """Return the names that `load_model` knows, "default" among them."""
    names = [path.stem for path in sorted(_RESOURCES.glob("*.pt"))]
    return sorted({DEFAULT, *names}) if names else []


def model_path(path_or_name: str | Path) -> Path:
    """Return the file of a packaged model, or the path itself.

    A bare name means a packaged model; write ``./default`` for a file of that name.

    Raises:
        CheckpointError: "default" was asked for and the installation has no model.
    """
    name = str(path_or_name)
    packaged = _RESOURCES / f"{name}.pt"
    if "/" not in name and packaged.is_file():
        return packaged
    if name != DEFAULT:
        return Path(path_or_name)
    models = sorted(_RESOURCES.glob("*.pt"))
    if len(models) != 1:
        raise CheckpointError(
            f"this installation of crack-md has {len(models)} packaged models, "
            "expected one; name a model file instead of 'default'"
        )
    return models[0]
