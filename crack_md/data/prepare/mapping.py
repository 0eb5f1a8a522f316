"""OC20's mapping file: which adsorbate on which surface a system is.

`oc20_data_mapping.pkl` is a pickle, and a pickle is a program. This one holds
dictionaries of text and numbers, so it is read by an unpickler that knows no function
at all: NumPy numbers, of which only adsorption sites are made, are left out, and
whatever else asks to be imported ends the reading.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crack_md.errors import DataError

_NUMPY_NUMBERS = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("_codecs", "encode"),
    }
)


class SystemInfo(NamedTuple):
    """What the mapping says about one system."""

    adsorbate: str
    """As OC20 writes it: "*O", "*CH2OH" …"""
    surface: str
    """Bulk composition and Miller indices: "Pt3Ni (1, 1, 1)"."""
    anomaly: int
    """0 none, 1 dissociated, 2 desorbed, 3 surface changed, 4 adsorbate misplaced."""


def read_mapping(
    path: Path, *, adsorbate: str | None = None
) -> tuple[dict[str, SystemInfo], dict[str, int]]:
    """Return the systems by their id, and how many there are of each adsorbate.

    Args:
        path: `oc20_data_mapping.pkl`.
        adsorbate: Keep the systems of this one only.

    Raises:
        DataError: The file is missing, damaged, or something else.
    """
    systems, counts = {}, {}  # type: dict[str, SystemInfo], dict[str, int]
    for name, record in _read_records(path).items():
        try:
            symbols = str(record["ads_symbols"])
            counts[symbols] = counts.get(symbols, 0) + 1
            if adsorbate is None or symbols == adsorbate:
                systems[str(name)] = _info(record, symbols)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: cannot read the record of '{name}' ({error!r}); expected "
                "ads_symbols, bulk_symbols, miller_index and anomaly"
            ) from error
    return systems, counts


def _info(record: Mapping[str, Any], symbols: str) -> SystemInfo:
    miller = ", ".join(str(int(index)) for index in record["miller_index"])
    surface = f"{record['bulk_symbols']} ({miller})"
    return SystemInfo(symbols, surface, int(record.get("anomaly", 0)))


def _read_records(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise DataError(f"no mapping file at {path}; expected oc20_data_mapping.pkl")
    try:
        with path.open("rb") as stream:
            content = _InertUnpickler(stream).load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # any byte of the file may be wrong
        raise DataError(
            f"cannot read {path} ({type(error).__name__}: {error}); expected OC20's "
            "oc20_data_mapping.pkl, whole"
        ) from error
    if not isinstance(content, dict) or not content:
        raise DataError(
            f"{path} holds a {type(content).__name__}; expected a dictionary of "
            "systems, as in oc20_data_mapping.pkl"
        )
    return content


class _Nothing:
    """What stands for a NumPy type or number: nothing."""

    __slots__ = ()

    def __new__(cls, *_arguments: object) -> "_Nothing":
        return super().__new__(cls)

    def __setstate__(self, _state: object) -> None: ...


class _InertUnpickler(pickle.Unpickler):
    """Containers, text and numbers; nothing is imported and nothing is called."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) in _NUMPY_NUMBERS:
            return _Nothing
        raise DataError(
            f"holds an object of '{module}.{name}', which was not run; expected "
            "dictionaries of text and numbers"
        )
