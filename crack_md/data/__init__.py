"""Datasets: readers, generated structures, labels, splits, normalisation."""

from crack_md.data.batches import Batch, Labels
from crack_md.data.dataset import (
    LabelledDataset,
    LabelledStructure,
    read_dataset,
)
from crack_md.data.readers import read_structures

__all__ = [
    "Batch",
    "LabelledDataset",
    "LabelledStructure",
    "Labels",
    "read_dataset",
    "read_structures",
]
