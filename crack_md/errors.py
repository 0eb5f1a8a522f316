"""Every error this package raises on purpose.

    CrackError
    ├── ConfigError             a YAML file or an option is wrong
    ├── CheckpointError         a model file cannot be read or is not what it claims
    ├── DataError               a dataset, database or results folder is unusable
    ├── StructureError          a model cannot be applied to this structure
    ├── TeacherError            a teacher cannot deliver what was asked of it
    ├── WorkerError             processes or machines that should work do not
    └── MissingDependencyError  an optional package is not installed

The command line turns each of them into one line on stderr and exit code 2. Messages
say what is wrong, what was found, what was expected, and what to do next.
"""

from collections.abc import Iterable


class CrackError(Exception):
    """Base of all errors that bad input can cause."""


class ConfigError(CrackError):
    """A configuration file or option is wrong."""


class CheckpointError(CrackError):
    """A model file cannot be read, or is not what it claims to be."""


class DataError(CrackError):
    """A dataset, database or results folder cannot be used."""


class StructureError(CrackError, ValueError):
    """A model cannot be applied to this structure."""


class TeacherError(CrackError):
    """A teacher cannot deliver what was asked of it."""


class WorkerError(CrackError):
    """Worker processes, or a cluster of them, do not start or are not alike."""


class MissingDependencyError(CrackError, ImportError):
    """An optional package is needed and not installed."""

    @classmethod
    def of(cls, package: str, *, extra: str, purpose: str) -> "MissingDependencyError":
        """Return the error that names the missing package and how to install it."""
        return cls(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"install it with: pip install 'crack-md[{extra}]'"
        )


def describe_unknown_elements(
    needed: Iterable[str],
    known: Iterable[str],
    *,
    by: str = "the model",
    of: str = "",
) -> str:
    """Return in words which elements a model does not know; empty where it knows all.

    Args:
        needed: symbols.
        known: symbols of what it was trained on.
        by: what should know them.
        of: what they are in, as in ``", which OH holds"``.
    """
    trained_on = sorted(set(known))
    unknown = sorted(set(needed) - set(trained_on))
    if not unknown:
        return ""
    return (
        f"{by} does not know {', '.join(unknown)}{of}; it was trained on "
        f"{', '.join(trained_on)}"
    )
