"""What a model file is checked for, before and after a network is made of it."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from crack_md.errors import CheckpointError, CrackError
from crack_md.models.pickles import RawCheckpoint

CHECKSUM = "checksum"
SIGNED = (
    "architecture",
    "state_dict",
    "energy_scale",
    "energy_reference",
    "element_references",
    "gas_references",
    "elements",
    "forces",
)
"""Parts that decide what a model answers; provenance may be edited."""
SIGNED_IF_THERE = ("isolated_references",)


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that decides what a model answers."""
    digest = hashlib.sha256()
    for name in (*SIGNED, *(one for one in SIGNED_IF_THERE if one in content)):
        digest.update(name.encode())
        for piece in _pieces(content[name]):
            digest.update(piece)
    return digest.hexdigest()


def check_checksum(raw: RawCheckpoint) -> None:
    """Refuse contents other than those that were saved; older files have no checksum.

    Raises:
        CheckpointError: a number of the file has changed since.
    """
    stored = raw.content.get(CHECKSUM)
    if stored is not None and stored != checksum(raw.content):
        raise CheckpointError(
            f"'{raw.path}' is damaged: its contents have another checksum than when it "
            "was saved; copy or download it again"
        )


def check_numbers(raw: RawCheckpoint, *, num_elements: int) -> None:
    """Refuse energies, scales and elements that no model has.

    Args:
        raw: the file, in the format of this package, all its parts there.
        num_elements: rows of the network's tables of elements.

    Raises:
        CheckpointError: something of another kind, not finite, or out of range.
    """
    content, path = raw.content, raw.path
    for name, value in content["energy_scale"].items():
        positive = name != "mean"
        if not _is_finite(value) or (positive and value <= 0):
            expected = "a number above 0" if positive else "a number"
            raise _wrong(path, f"energy_scale.{name}", value, expected)
    elements = content["elements"]
    isolated = content.get("isolated_references", {})
    for number in [*elements, *content["element_references"], *isolated]:
        if type(number) is not int or not 1 <= number < num_elements:
            expected = f"atomic numbers from 1 to {num_elements - 1}"
            raise _wrong(path, "elements", number, expected)
    if not elements:
        raise _wrong(path, "elements", elements, "at least one")
    for name in ("element_references", "gas_references", "isolated_references"):
        for key, value in content.get(name, {}).items():
            if not _is_finite(value) or not isinstance(key, int | str):
                raise _wrong(path, f"{name}[{key!r}]", value, "an energy in eV")


@contextmanager
def only_checkpoint_errors(path: object) -> Iterator[None]:
    """Turn whatever a part of the wrong kind causes into one line."""
    try:
        yield
    except CrackError:
        raise
    except Exception as error:  # every part of a file may be anything
        words = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"'{path}' holds a part of the wrong kind ({type(error).__name__}: "
            f"{words}); it is damaged, or no model that crack-md can read"
        ) from error


def _wrong(path: object, name: str, found: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"'{path}' has a wrong '{name}': found {str(found)[:60]!r}, expected {expected}"
    )


def _is_finite(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield bytes that differ wherever values do; order of keys does not count."""
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield f"{key!r}:".encode()
            yield from _pieces(value[key])
    elif isinstance(value, list | tuple):
        yield f"[{len(value)}".encode()
        for one in value:
            yield from _pieces(one)
    else:
        yield repr(value).encode()
