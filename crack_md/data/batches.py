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


class JacobianBatch(NamedTuple):
    """Rows of the teacher's force Jacobian, equally many for every structure.

    Structures do not see each other, so row k of all structures is one derivative of
    the whole batch: that of all forces along one coordinate in every structure.
    """

    atom: Int[Tensor, "structure row"]
    """The atom that moves, counted through the batch."""
    axis: Int[Tensor, "structure row"]
    """The direction in which it moves, 0 to 2."""
    values: Float[Tensor, "row atom 3"]
    """∂F_j/∂r in eV/Å² for every atom j and the coordinate of its own structure."""


class Batch(NamedTuple):
    """Several labelled structures."""

    graph: AtomGraph
    labels: Labels
    teacher: Prediction | None
    """With node features (atom, coefficient, channel); no channel where it has none."""
    jacobian: JacobianBatch | None = None
    """Where the teacher's labels have rows of its Jacobian."""
    chains: AtomGraph | None = None
    """Structures without labels that the student's own dynamics has come to."""
