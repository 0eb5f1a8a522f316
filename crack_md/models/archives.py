"""An unpickler of torch archives that resolves no foreign name.

Only constructors that can do no harm are known: containers, tensors as views of the
archive's own storages, NumPy numbers. Any other class or function of the pickle becomes
a `Foreign`, which remembers its name and its contents and does nothing.

A file takes no more memory than in proportion to its size. What could grow beyond that
is refused: compressed members, members that share their bytes, tensors larger than
their storage, containers copied over and over. The unpickler is the one in Python, not
the one in C, which allocates 64 GB for one large index in its memo.
"""

import io
import math
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from crack_md.errors import CheckpointError

LARGEST_PICKLE = 16 << 20
"""Bytes of what describes the tensors; the largest public checkpoint has 0.5 MB."""
MOST_COPIED = 10**7
"""Entries of all containers that constructors of one file make."""
MOST_FOREIGN = 1000
"""Classes and functions of one file that are not known."""
SHARED = 8
"""How often the bytes of an archive may be part of a tensor, on average."""

_NUMPY_KINDS = "biufc"  # no "O": object arrays would nest another pickle

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class Foreign:
    """An object of a class this package does not know: its contents, not its code."""

    qualified_name = "?"
    contents: dict[Any, Any]

    def __new__(cls, *_arguments: object, **_keywords: object) -> "Foreign":
        """Return an empty placeholder, whatever the real class would make of this."""
        placeholder = super().__new__(cls)
        placeholder.contents = {}
        return placeholder

    def __call__(self, *_arguments: object, **_keywords: object) -> "Foreign":
        """Return itself: what a foreign function returns is foreign, too."""
        return self

    def __setstate__(self, state: object) -> None:
        """Keep the attributes of the real object as contents."""
        if isinstance(state, dict):
            self.contents.update(state)

    def __setitem__(self, key: Any, value: object) -> None:
        """Keep an item of a foreign mapping."""
        self.contents[key] = value

    def append(self, _value: object) -> None:
        """Ignore an element of a foreign list."""

    def extend(self, _values: object) -> None:
        """Ignore the elements of a foreign list."""

    def add(self, _value: object) -> None:
        """Ignore an element of a foreign set."""


class _Constructor:
    """A harmless function that a pickle may call but can not change."""

    __slots__ = ("_build", "_count")
    _build: Callable[..., object]
    _count: Callable[[object], None]

    def __init__(
        self, build: Callable[..., object], count: Callable[[object], None]
    ) -> None:
        object.__setattr__(self, "_build", build)
        object.__setattr__(self, "_count", count)

    def __call__(self, *arguments: object) -> object:
        made = self._build(*arguments)
        self._count(made)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("a pickle tried to change a function")


class _NumpyType:
    """The scalar type of a pickled NumPy number."""

    def __init__(self, code: str, *_flags: object) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in _NUMPY_KINDS:
            raise pickle.UnpicklingError(f"NumPy type {code!r} is no number")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder("<" if state[1] == "<" else ">")


def _numpy_number(kind: _NumpyType, data: bytes) -> object:
    return np.frombuffer(data, kind.dtype, count=1)[0].item()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1" if encoding else encoding)


def _strided(
    storage: Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *_rest: object,
) -> Tensor:
    if not isinstance(storage, Tensor) or math.prod(size) > storage.numel():
        raise pickle.UnpicklingError(f"a tensor of shape {size} in a smaller storage")
    return storage.as_strided(tuple(size), tuple(stride), offset)


_CONSTRUCTORS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": lambda *_factory: {},
    "_codecs.encode": _latin1,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": lambda *parts: ":".join(str(part) for part in parts),
    "torch._utils._rebuild_tensor": _strided,
    "torch._utils._rebuild_tensor_v2": _strided,
    "torch._utils._rebuild_parameter": lambda data, *_rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_rest: data,
    "numpy.dtype": _NumpyType,
    "numpy.core.multiarray.scalar": _numpy_number,
    "numpy._core.multiarray.scalar": _numpy_number,
    **{
        f"{builtins}.{kind.__name__}": kind
        for builtins in ("builtins", "__builtin__")
        for kind in (set, frozenset, dict, list, tuple, complex)
    },
}


def archive_root(archive: zipfile.ZipFile) -> str:
    """Return the folder inside the archive that holds the checkpoint.

    Raises:
        CheckpointError: The archive is something else than a checkpoint.
    """
    names = archive.namelist()
    roots = [n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")]
    is_program = any(name.endswith("/constants.pkl") for name in names)
    if is_program or len(roots) != 1:
        kind = "a TorchScript program" if is_program else "a zip archive"
        raise CheckpointError(
            f"'{archive.filename}' is {kind}, no checkpoint; expected a file written "
            "by torch.save"
        )
    return roots[0]


def check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive that holds more than its size.

    Args:
        archive: as it was opened.
        size: of the file in bytes.

    Raises:
        CheckpointError: members are compressed, or share their bytes.
    """
    members = archive.infolist()
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > size:
        raise CheckpointError(
            f"'{archive.filename}' holds compressed or overlapping members; expected "
            "a file as torch.save writes it, which is as large as its tensors"
        )


class ArchiveReader(pickle._Unpickler):
    """Unpickler of one torch archive that never resolves a foreign name."""

    dispatch = dict(pickle._Unpickler.dispatch)  # noqa: RUF012

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._copied = 0
        self._tensor_bytes = 0
        self._largest = SHARED * sum(one.file_size for one in archive.infolist())
        self._root = archive_root(archive)
        self._storages: dict[str, Tensor] = {}
        self._placeholders: dict[str, type[Foreign]] = {}
        order = f"{self._root}byteorder"
        if (
            order in archive.namelist()
            and archive.read(order).decode() != sys.byteorder
        ):
            raise pickle.UnpicklingError("written with another byte order")
        program = f"{self._root}data.pkl"
        if archive.getinfo(program).file_size > LARGEST_PICKLE:
            raise pickle.UnpicklingError(
                f"more than {LARGEST_PICKLE >> 20} MB of names"
            )
        super().__init__(io.BytesIO(archive.read(program)))

    @property
    def foreign(self) -> set[str]:
        """Return the names of all classes and functions that were not resolved."""
        return set(self._placeholders)

    def find_class(self, module: str, name: str) -> Any:
        """Return a harmless constructor, a dtype, or an inert placeholder class."""
        qualified = f"{module}.{name}"
        if qualified in _CONSTRUCTORS:
            return _Constructor(_CONSTRUCTORS[qualified], self._count)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ("torch", "torch.cuda") and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if qualified not in self._placeholders:
            if len(self._placeholders) == MOST_FOREIGN:
                raise pickle.UnpicklingError(f"more than {MOST_FOREIGN} unknown names")
            attributes = {"qualified_name": qualified}
            self._placeholders[qualified] = type("Foreign", (Foreign,), attributes)
        return self._placeholders[qualified]

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the flat tensor of one storage record of the archive."""
        kind, dtype, key, _location, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown storage {kind!r}")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            if len(data) != numel * dtype.itemsize:
                raise struct.error(f"storage {key} has {len(data)} bytes")
            self._storages[key] = (
                torch.frombuffer(data, dtype=dtype)
                if data
                else torch.empty(0).to(dtype)
            )
        return self._storages[key]

    def _count(self, made: object) -> None:
        if isinstance(made, Tensor):
            self._tensor_bytes += made.numel() * made.itemsize
        elif isinstance(made, Sized):
            self._copied += len(made)
        if self._copied > MOST_COPIED or self._tensor_bytes > self._largest:
            raise pickle.UnpicklingError("more contents than the file can hold")

    def load_build(self) -> None:
        """Set the state of an object; that of a tensor could resize it."""
        if isinstance(self.stack[-2], Tensor):  # type: ignore[attr-defined]
            raise pickle.UnpicklingError("a pickle tried to change a tensor")
        super().load_build()  # type: ignore[misc]

    def load_bytearray8(self) -> None:
        """Refuse what allocates before it reads."""
        raise pickle.UnpicklingError("a byte array, which no checkpoint needs")

    dispatch |= {
        pickle.BUILD[0]: cast(Any, load_build),
        pickle.BYTEARRAY8[0]: cast(Any, load_bytearray8),
    }
