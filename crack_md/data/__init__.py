"""Datasets: readers, generated structures, labels, splits, normalisation.

Names are loaded when they are first used: what needs no PyTorch does not load it.
"""

from typing import TYPE_CHECKING

from crack_md import load_lazily

if TYPE_CHECKING:
    from crack_md.data.dataset import LabelledDataset, LabelledStructure, read_dataset
    from crack_md.data.readers import read_structures

__all__ = [
    "LabelledDataset",
    "LabelledStructure",
    "read_dataset",
    "read_structures",
]

__getattr__ = load_lazily(
    __name__,
    {
        "LabelledDataset": "dataset",
        "LabelledStructure": "dataset",
        "read_dataset": "dataset",
        "read_structures": "readers",
    },
)
