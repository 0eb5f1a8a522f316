"""What a loss term sees, and the small protocol it fulfils.

A term is a thin object around one pure function: it picks what the formula needs from a
:class:`DistillationStep` and returns one scalar. A section of the YAML file holds its
weight and its options, says what it reads of the teacher, and builds the term.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from crack_md.data.dataset import LabelledStructure
from crack_md.graph import AtomGraph
from crack_md.input_files import Section
from crack_md.models.force_field import EnergyScale, ForceField, Prediction
from crack_md.training.data.frames import JacobianBatch, Labels


@runtime_checkable
class Ranks(Protocol):
    """The other processes of a data-parallel run, as far as losses need them."""

    def average(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the mean of a number over all processes, without gradient."""
        ...

    def gather(
        self, rows: Float[Tensor, "row channel"]
    ) -> Float[Tensor, "all channel"]:
        """Return the rows of all processes; gradients flow back to their owners."""
        ...

    def first_row(self, n_rows: int) -> int:
        """Return where the rows of this process start among the gathered ones."""
        ...


class OneRank:
    """A run on a single process: nothing to exchange."""

    def average(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the value."""
        return value

    def gather(
        self, rows: Float[Tensor, "row channel"]
    ) -> Float[Tensor, "row channel"]:
        """Return the rows."""
        return rows

    def first_row(self, n_rows: int) -> int:
        """Return zero."""
        return 0


Counts = Mapping[str, Float[Tensor, " mean"]]
"""Over how many items the means of each loss run, by its name."""


class Features(NamedTuple):
    """Node features of one degree, in the teacher's channels.

    Above degree 0 the last axis holds all 2l + 1 coefficients of every channel.
    """

    teacher: Float[Tensor, "atom channel"]
    student: Float[Tensor, "atom channel"]
    """Behind the linear head P."""


@dataclass(frozen=True)
class DistillationStep:
    """Everything one training step knows; every term reads its part of it."""

    graph: AtomGraph
    """Its positions require a gradient where a term differentiates forces."""
    student: Prediction
    teacher: Prediction | None
    labels: Labels
    features: tuple[Features, ...] = ()
    """By degree, from 0; empty where no term compares features."""
    own_features: Mapping[str, tuple[Features, ...]] = field(default_factory=dict)
    """The same for terms with a head of their own."""
    jacobian: JacobianBatch | None = None
    model: Callable[[AtomGraph], Prediction] | None = None
    """The student, for terms that ask it about other positions; never in bfloat16."""
    energy_of: Callable[[AtomGraph], Tensor] | None = None
    """The student's energies of other structures in eV, without the cost of forces."""
    chains: AtomGraph | None = None
    """Where the student's own dynamics has gone, for terms that contrast it."""
    ranks: Ranks = OneRank()  # noqa: RUF009  (it has no state)
    counts: Counts | None = None
    """Of the whole batch, where this is a part of it; per process."""

    def features_of(self, term: str) -> tuple[Features, ...]:
        """Return what a term compares, by degree."""
        features = self.own_features.get(term, self.features)
        assert features, f"the builder gives {term} its features"
        return features

    def mean(
        self, values: Float[Tensor, " item"], *, term: str, place: int = 0
    ) -> Float[Tensor, ""]:
        """Return the sum of values over how many the batch has per process.

        DDP averages gradients over processes, so this is the mean over the items of all
        processes, also where they hold different numbers of atoms. Of a batch in parts
        it is this part's share of that mean. No item gives zero.

        Args:
            values: one for each item of this process, or of this part.
            term: whose mean it is.
            place: which of the counts of the term, where it takes several means.
        """
        if self.counts is None:
            number = self.ranks.average(values.new_tensor(values.numel()))
        else:
            number = self.counts[term][place].to(values)
        return values.sum() / number.clamp_min(1e-12)


@runtime_checkable
class LossTerm(Protocol):
    """One named part of the objective."""

    @property
    def name(self) -> str:
        """Return the name under which the term is logged."""
        ...

    def __call__(self, step: DistillationStep) -> Float[Tensor, ""]:
        """Return the unweighted loss, zero where the batch has nothing to compare."""
        ...

    def count_items(self, step: DistillationStep) -> Sequence[int]:
        """Return over how many items of the step each mean of the loss runs.

        Most losses are one mean. The student's answer is not looked at: a batch that
        comes in parts is counted as a whole before the student sees the first.
        """
        ...


class WeightedTerm(NamedTuple):
    """A term with its weight from the YAML file."""

    term: LossTerm
    weight: float


Label = Literal["energy", "node_features", "node_energy", "jacobian"]
"""What a loss may read of the teacher."""
Weight = Annotated[float, Field(ge=0)]
"""Of a loss; less than nothing would train the student away from its teacher."""
Degrees = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class TrainedOn(NamedTuple):
    """What losses take their units from."""

    student: ForceField
    train: Sequence[LabelledStructure]
    """The training frames."""
    labelled: Sequence[LabelledStructure]
    """Those of them that show the teacher's labels, usually all."""


class LossSection(Section):
    """A loss as a training configuration names it: its options, needs and terms."""

    @property
    def reads(self) -> tuple[Label, ...]:
        """Return what is read of the teacher."""
        return ()

    @property
    def sees_whole_batch(self) -> bool:
        """Return whether all structures of a batch are compared with each other."""
        return False

    @abstractmethod
    def build_terms(self, name: str, run: TrainedOn) -> list[WeightedTerm]:
        """Return the weighted terms of the loss.

        Args:
            name: Under which a single term is logged.
            run: What is trained, on what.
        """


def energy_spread(
    frames: Sequence[LabelledStructure], scale: EnergyScale, *, per_atom: bool
) -> float:
    """Return the standard deviation in eV of energies without element references."""
    references = scale.element_references
    residuals = [
        (frame.energy - sum(references.get(int(z), 0.0) for z in frame.atoms.numbers))
        / (len(frame.atoms) if per_atom else 1)
        for frame in frames
    ]
    return usable_spread(float(np.std(residuals)))


def usable_spread(spread: float) -> float:
    """Return a spread in eV, or 1: one frame, or equal ones, has none."""
    return spread if spread > 1e-6 else 1.0
