"""Reading PyTorch files without running what is pickled in them.

A pickle is a program: unpickling a checkpoint of unknown origin can run any command.
Public checkpoints often hold objects of their training code beside the weights, so a
plain ``weights_only=True`` refuses many honest ones, and lets a small file take any
amount of memory. ``read_checkpoint`` reads the archive itself: tensors, numbers and
containers are rebuilt, and every other class or function becomes an inert placeholder
(`archives`). Nothing is imported and nothing is called. The checksum of every part of
the archive is verified on the way, so that a flipped bit is found.
"""

import hashlib
import os
import pickle
import pickletools
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crack_md.errors import CheckpointError
from crack_md.models.archives import ArchiveReader, Foreign, archive_root, check_members

N_PICKLES = 4
"""A magic number, a version, a description of the machine, and the contents."""
KNOWN = frozenset(
    [
        "collections OrderedDict",
        "torch Size",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
    ]
)


def check_stream(path: Path) -> None:
    """Refuse a file that could take more memory than its size.

    Storages are allocated by a length that the file states, and read afterwards: no
    whole number in it may exceed the size of the file.

    Raises:
        pickle.UnpicklingError: it holds a larger one, or other objects than tensors.
        ValueError: it is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_SET)
        for number in range(N_PICKLES):
            for code, argument, _ in pickletools.genops(stream):
                if code.name in ("GLOBAL", "INST", "STACK_GLOBAL", "BYTEARRAY8"):
                    _check_name(code.name, str(argument))
                too_large = isinstance(argument, int) and argument > size
                if number and too_large:  # the magic number comes first
                    raise pickle.UnpicklingError(
                        f"the number {argument} in a file of {size} bytes"
                    )


def _check_name(code: str, name: str) -> None:
    module, _, kind = name.partition(" ")
    is_storage = module in ("torch", "torch.cuda") and kind.endswith("Storage")
    if code != "GLOBAL" or not (name in KNOWN or is_storage):
        raise pickle.UnpicklingError(f"an object of '{name}'")


_DEEPEST = 50
_MOST_PARTS = 10**5
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True)
class RawCheckpoint:
    """What a PyTorch file holds, before anyone has said what it means."""

    path: Path
    content: dict[str, Any]
    sha256: str
    foreign: tuple[str, ...] = ()
    """Classes and functions that were replaced by inert placeholders."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_checkpoint(path: str | Path) -> RawCheckpoint:
    """Return the dictionary stored in a PyTorch file; no pickled code is run.

    Raises:
        CheckpointError: The file is missing, cut short, not a PyTorch file, or
            something else than a dictionary.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(
            f"no model file at '{path}': found {found}, expected a .pt file or the "
            "name of a packaged model such as 'default'"
        )
    try:
        content, foreign = _read_any(path)
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error}") from error
    if not isinstance(content, dict):
        what = f"a pickled {type(content).__name__}"
        if isinstance(content, Foreign):
            what = f"an object of '{content.qualified_name}', which was not run"
        raise CheckpointError(
            f"'{path}' holds {what}; expected a dictionary with a state_dict, as "
            "torch.save of a training code writes it"
        )
    return RawCheckpoint(path, content, file_sha256(path), foreign)


def _read_any(path: Path) -> tuple[object, tuple[str, ...]]:
    with path.open("rb") as stream:
        head = stream.read(len(_LEGACY_MAGIC))
    if head.startswith(_ZIP_MAGIC):
        return _read_archive(path)
    if head != _LEGACY_MAGIC:
        kind = "a tar archive" if tarfile.is_tarfile(path) else "no PyTorch file"
        raise CheckpointError(
            f"'{path}' is {kind} (it begins with {head[:8]!r}); expected a file "
            "written by torch.save"
        )
    try:
        check_stream(path)
        return torch.load(path, map_location="cpu", weights_only=True), ()
    except Exception as error:  # any byte of the file may be wrong
        raise CheckpointError(
            f"cannot read '{path}', a file in the format of PyTorch before 1.6: it is "
            f"damaged or holds objects that would run code ({_brief(error)}); write it "
            "again with a newer torch.save, tensors and plain containers only"
        ) from error


def _read_archive(path: Path) -> tuple[object, tuple[str, ...]]:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"'{path}' is cut short ({path.stat().st_size} bytes): it begins as a "
            "PyTorch archive and its end is missing; copy or download it again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            archive_root(archive)
            check_members(archive, path.stat().st_size)
            reader = ArchiveReader(archive)
            return reader.load(), tuple(sorted(reader.foreign))
    except CheckpointError:
        raise
    except Exception as error:  # any byte of the file may be wrong
        raise CheckpointError(
            f"'{path}' is damaged or no PyTorch file ({_brief(error)}); copy or "
            "download it again"
        ) from error


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def plain(value: object) -> Any:
    """Return the value as containers, numbers, text and tensors; text of the rest.

    Raises:
        CheckpointError: It has more than 1e5 parts; a list that holds itself
            twice, say.
    """
    return _Copy().of(value, 0)


class _Copy:
    """One copy of nested containers, which counts what it makes."""

    def __init__(self) -> None:
        self.n_parts = 0

    def of(self, value: object, depth: int) -> Any:
        self.n_parts += 1
        if self.n_parts > _MOST_PARTS:
            raise CheckpointError(
                f"the file describes itself in more than {_MOST_PARTS} parts; expected "
                "the provenance of a model"
            )
        if depth > _DEEPEST:  # a foreign file may hold a list that contains itself
            return "..."
        if value is None or isinstance(value, bool | int | float | str | Tensor):
            return value
        if isinstance(value, Mapping):
            return {
                key if isinstance(key, int | float | str) else str(key): self.of(
                    item, depth + 1
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.of(item, depth + 1) for item in value]
        if isinstance(value, Foreign):
            return self.of(value.contents, depth + 1) or f"<{value.qualified_name}>"
        return str(value)
