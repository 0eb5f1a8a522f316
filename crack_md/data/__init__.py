"""Datasets: readers, generated structures, labels, splits, normalisation.

Names are loaded when they are first used: what needs no PyTorch does not load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crack_md.data.dataset import LabelledDataset, LabelledStructure, read_dataset
    from crack_md.data.readers import read_structures

__all__ = [
    "LabelledDataset",
    "LabelledStructure",
    "read_dataset",
    "read_structures",
]

_HOMES = {
    "LabelledDataset": "dataset",
    "LabelledStructure": "dataset",
    "read_dataset": "dataset",
    "read_structures": "readers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
