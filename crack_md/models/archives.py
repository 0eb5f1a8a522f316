"""An unpickler of torch archives that resolves no foreign name.

Only constructors that can do no harm are known: containers, tensors as views of the
archive's own storages, NumPy numbers. Any other class or function of the pickle becomes
a `Foreign`, which remembers its name and its contents and does nothing.
"""

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crack_md.errors import CheckpointError

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

    __slots__ = ("_build",)
    _build: Callable[..., object]

    def __init__(self, build: Callable[..., object]) -> None:
        object.__setattr__(self, "_build", build)

    def __call__(self, *arguments: object) -> object:
        return self._build(*arguments)

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


class ArchiveReader(pickle.Unpickler):
    """Unpickler of one torch archive that never resolves a foreign name."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._root = archive_root(archive)
        self._storages: dict[str, Tensor] = {}
        self._placeholders: dict[str, type[Foreign]] = {}
        order = f"{self._root}byteorder"
        if (
            order in archive.namelist()
            and archive.read(order).decode() != sys.byteorder
        ):
            raise pickle.UnpicklingError("written with another byte order")
        super().__init__(io.BytesIO(archive.read(f"{self._root}data.pkl")))

    @property
    def foreign(self) -> set[str]:
        """Return the names of all classes and functions that were not resolved."""
        return set(self._placeholders)

    def find_class(self, module: str, name: str) -> Any:
        """Return a harmless constructor, a dtype, or an inert placeholder class."""
        qualified = f"{module}.{name}"
        if qualified in _CONSTRUCTORS:
            return _Constructor(_CONSTRUCTORS[qualified])
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ("torch", "torch.cuda") and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if qualified not in self._placeholders:
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
