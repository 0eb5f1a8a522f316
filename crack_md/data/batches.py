"""What one training step reads: a graph with its labels and its teacher's answer."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from crack_md.graph import AtomGraph
from crack_md.models.base import Prediction


class Labels(NamedTuple):
    """The labels of the dataset, in eV and Å."""

    energy: Float[Tensor, " structure"]
    """float64: hundreds of eV, of which float32 would round off the differences."""
    forces: Float[Tensor, "atom 3"]
    free: Bool[Tensor, " atom"]
    """True for atoms that no constraint holds."""
    sizes: Int[Tensor, " structure"]
    """Atoms per structure."""


class Batch(NamedTuple):
    """Several labelled structures."""

    graph: AtomGraph
    labels: Labels
    teacher: Prediction | None
    """With node features (atom, 1, channel); no channel where it has none."""
