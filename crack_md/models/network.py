"""What a model is: the protocol that every architecture follows.

Edges go in (vectors, senders, receivers, elements), and energies and features of atoms
come out. Everything else is common: `ForceField` makes total energies of them, forces
and stress as derivatives; trainer, calculators, engines and ``student.pt`` know no more
of a network than what stands here.

A new architecture is one file in `crack_md.models.architectures`: a frozen dataclass
after `Architecture` with every choice, a module after `Network` with `evaluate`, and an
entry in the table of that package. What it promises, and its tests check:

    energies depend on vectors between atoms alone, and on no numbering of atoms
    rotated edges give rotated features; coefficient 0 of the features is invariant
    an edge that reaches the cutoff has left no trace in energies, forces and features
    an atom without edges has the energy 0: its element's reference is the whole
    (EquiformerV2, being the paper's, has a constant of its own there)

Atoms nearer than bonds are the business of `Network` and `short_range`: an architecture
never sees how near they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_type_hints

import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crack_md.errors import ConfigError
from crack_md.graph import AtomGraph, edge_vectors, pair_vectors, slots_to_work_on
from crack_md.models.precision import ExactConstants
from crack_md.models.short_range import ShortRange, ShortRangeKind, switch_off
from crack_md.neighbors import NeighborRule, SmoothNeighbors, StrictNeighbors

Forces = Literal["direct", "gradient"]

ISOLATION_DECAY = 3.0
"""Of `isolation`: how fast neighbors end it."""
START_ENERGY = 0.3
"""Of new networks, in their unit: small beside the labels."""


class NetworkOutput(NamedTuple):
    """Raw outputs, before any scale or reference."""

    node_energy: Float[Tensor, " atom"]
    forces: Float[Tensor, "atom 3"] | None
    """Of a head; None where forces are the gradient of the energy."""
    node_features: Float[Tensor, "atom coefficient channel"]
    """Coefficient 0 is invariant: what losses and feature statistics read."""
    pair_energy: Float[Tensor, " atom"] | None = None
    """Half of the short-range repulsion of all pairs of an atom, in eV."""
    isolation: Float[Tensor, " atom"] | None = None
    """1 for an atom without neighbors, 0 for one among many (`isolation`)."""


class Edges(NamedTuple):
    """The edges of a batch, row by row of the table of neighbors.

    Empty slots are left out where that is cheap (`filled`). Where shapes must not
    depend on data some or all of them take part, with the length of the cutoff.
    """

    vectors: Float[Tensor, "edge 3"]
    """From receiver to sender, in Å."""
    lengths: Float[Tensor, " edge"]
    senders: Int[Tensor, " edge"]
    receivers: Int[Tensor, " edge"]
    """Ascending."""
    numbers: Int[Tensor, " atom"]
    """Atomic numbers."""
    mask: Bool[Tensor, "atom slot"]
    """Which slots of the table hold an edge."""
    filled: Int[Tensor, " edge"] | None
    """Slots that edges belong to; None if every slot has its entry."""
    compact: bool
    """Whether shapes may depend on data: eager code on a CPU."""

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms."""
        return self.mask.shape[0]

    @property
    def real(self) -> Bool[Tensor, " edge"]:
        """Return which entries are edges, not empty slots."""
        flat = self.mask.flatten()
        return flat if self.filled is None else flat.index_select(0, self.filled)

    def to_table(
        self, values: Float[Tensor, "edge ..."]
    ) -> Float[Tensor, "atom slot ..."]:
        """Return values of edges as rows of atoms, zero in slots left out."""
        if self.filled is not None:
            table = values.new_zeros(self.mask.numel(), *values.shape[1:])
            values = table.index_copy(0, self.filled, values)
        return values.unflatten(0, self.mask.shape)

    def sums(self, values: Float[Tensor, "edge ..."]) -> Float[Tensor, "atom ..."]:
        """Return the sum over the edges of every receiver."""
        zeros = values.new_zeros(self.n_atoms, *values.shape[1:])
        return zeros.index_add(0, self.receivers, values)


def edges_from_list(
    vectors: Float[Tensor, "edge 3"],
    senders: Int[Tensor, " edge"],
    receivers: Int[Tensor, " edge"],
    numbers: Int[Tensor, " atom"],
) -> Edges:
    """Return edges that come as a list, as other programs keep them, in any order.

    They are sorted by receiver, the order among those of one atom being kept.

    Args:
        vectors: from receiver to sender in Å, in the precision of the model.
        senders: index of an atom of every edge.
        receivers: likewise.
        numbers: atomic numbers.
    """
    receivers, order = receivers.sort(stable=True)
    per_atom = torch.bincount(receivers, minlength=numbers.shape[0])
    width = max(1, int(per_atom.max()))
    first = per_atom.cumsum(0) - per_atom
    places = torch.arange(receivers.shape[0], device=receivers.device)
    slots = places - first.index_select(0, receivers)
    vectors = vectors.index_select(0, order)
    return Edges(
        vectors=vectors,
        lengths=torch.linalg.vector_norm(vectors, dim=-1),
        senders=senders.index_select(0, order),
        receivers=receivers,
        numbers=numbers,
        mask=torch.arange(width, device=places.device) < per_atom.unsqueeze(1),
        filled=receivers * width + slots,
        compact=not vectors.is_cuda,
    )


@dataclass(frozen=True)
class Architecture:
    """What all architectures have to choose; the fields are their entry in a file.

    Raises:
        ValueError: a value of the wrong kind, or outside `limits`.
    """

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """The lowest and highest value that makes sense, by field."""

    name: str = ""
    """Which architecture it is."""
    cutoff: float = 5.0
    """Å."""
    num_elements: int = 90
    """Atomic numbers below this are representable."""
    forces: Forces = "gradient"
    average_atoms: float = 1.0
    """What raw energies are divided by."""
    short_range: ShortRangeKind = "none"
    """What keeps atoms apart below bonding distances, beside the network."""

    def __post_init__(self) -> None:
        """Refuse what no network can be built of."""
        hints = get_type_hints(type(self))
        for field in fields(self):
            _check(field.name, getattr(self, field.name), hints[field.name])
        bounds = {
            "cutoff": (0.5, 50.0),
            "num_elements": (2, 119),
            "average_atoms": (1e-3, 1e6),
        }
        for name, (lowest, highest) in {**bounds, **self.limits}.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(
                    f"{name} is {value}; expected {lowest:g} to {highest:g}"
                )
        strict = isinstance(self.rule, StrictNeighbors)
        if self.short_range != "none" and (strict or self.forces != "gradient"):
            raise ValueError(
                f"short_range '{self.short_range}' is part of an energy of all "
                "neighbors; expected neighbors: smooth and forces: gradient beside it"
            )

    @property
    def rule(self) -> NeighborRule:
        """Return the neighbor rule that graphs for the network must follow."""
        return SmoothNeighbors(cutoff=self.cutoff)

    def refusal(self, atoms: Atoms) -> str | None:
        """Return why the network is none for a structure; None where it is one."""
        return None

    @property
    def hops(self) -> int:
        """Return over how many edges in a row an atom's energy feels another atom."""
        raise NotImplementedError

    @property
    def feature_channels(self) -> int:
        """Return the channels of the node features."""
        raise NotImplementedError

    @property
    def feature_degree(self) -> int:
        """Return the highest degree l of the node features."""
        return 0

    @property
    def summary(self) -> str:
        """Return the sizes in a few words."""
        raise NotImplementedError


@dataclass(frozen=True)
class SmoothArchitecture(Architecture):
    """What networks choose whose only edges are those of a smooth envelope."""

    limits: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {"envelope_power": (2, 20)}
    )

    cutoff: float = 4.5
    forces: Literal["gradient"] = "gradient"
    short_range: ShortRangeKind = "zbl"
    envelope_power: int = 5


class Network(ExactConstants):
    """A network of any architecture.

    Args:
        config: every choice that changes its function or its parameters.
    """

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    """How the weights of parts are named that can be copied alone."""

    filler: Tensor
    config: Architecture
    tells_isolation: bool = False
    """Whether outputs say how alone atoms are; set by the force field that uses it."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.config = config
        # An empty slot gets a harmless direction: zero vectors have no frame.
        self.keep("filler", torch.tensor([0.0, config.cutoff, 0.0], device="cpu"))
        self.short_range = (
            ShortRange(config.num_elements, config.cutoff)
            if config.short_range == "zbl"
            else None
        )

    def forward(
        self,
        graph: AtomGraph,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        compact: bool | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Return raw energies per atom, raw direct forces and final features.

        Args:
            graph: atoms and neighbor table, built by ``config.rule``.
            frames: rotations that turn each edge onto +y, for networks that use them;
                None takes their own.
            compact: leave empty slots out of the work; None does so on the CPU, where
                it costs neither a synchronisation nor a recompilation.
            recompute: evaluate parts of large structures again for a gradient, instead
                of keeping what it needs. The gradient itself has none then.
        """
        edges = self.edges(graph, compact=compact)
        return self.output(edges, frames=frames, recompute=recompute)

    def output(
        self,
        edges: Edges,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Return the same for edges instead of a graph, as other programs have them."""
        alone = isolation(edges, self.config.cutoff) if self.tells_isolation else None
        if self.short_range is None:
            output = self.evaluate(edges, frames=frames, recompute=recompute)
            return output._replace(isolation=alone)
        pairs, seen = _apart(edges, self.short_range)
        output = self.evaluate(seen, frames=frames, recompute=recompute)
        return output._replace(pair_energy=pairs, isolation=alone)

    def pair_energy(self, graph: AtomGraph) -> Float[Tensor, " atom"]:
        """Return the short-range repulsion alone, in eV; zero without any."""
        edges = self.edges(graph)
        if self.short_range is None:
            return edges.lengths.new_zeros(edges.n_atoms)
        return _apart(edges, self.short_range)[0]

    def edges(self, graph: AtomGraph, *, compact: bool | None = None) -> Edges:
        """Return the edges of a graph; `forward` explains ``compact``."""
        if compact is None:
            compact = not (graph.mask.is_cuda or torch.compiler.is_compiling())
        senders, n_slots = graph.neighbors.flatten(), graph.mask.shape[1]
        filled = slots_to_work_on(graph, compact=compact)
        if filled is None:
            receivers = torch.arange(senders.shape[0], device=senders.device) // n_slots
            vectors = torch.where(
                graph.mask.unsqueeze(-1), edge_vectors(graph), self.filler
            ).flatten(0, 1)
        else:
            senders, receivers = senders.index_select(0, filled), filled // n_slots
            shifts = graph.cell_shift.flatten(0, 1).index_select(0, filled)
            vectors = pair_vectors(graph, senders, receivers, shifts)
            if not compact:
                real = graph.mask.flatten().index_select(0, filled)
                vectors = torch.where(real.unsqueeze(-1), vectors, self.filler)
        return Edges(
            vectors=vectors,
            lengths=torch.linalg.vector_norm(vectors, dim=-1),
            senders=senders,
            receivers=receivers,
            numbers=graph.atomic_numbers,
            mask=graph.mask,
            filled=filled,
            compact=compact,
        )

    def evaluate(
        self,
        edges: Edges,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Return the outputs for given edges; `forward` explains the options."""
        raise NotImplementedError

    def is_large(self, mask: Bool[Tensor, "atom slot"]) -> bool:
        """Return whether a table has too many edges to be worked on in one piece."""
        return False

    def lower_products(self, dtype: torch.dtype) -> None:
        """Let the largest products be computed in a lower precision, for inference.

        Raises:
            ConfigError: the architecture has none that are worth it.
        """
        raise ConfigError(
            f"the products of architecture '{self.config.name}' are too small to gain "
            f"from {str(dtype).removeprefix('torch.')}; use dtype 'float32'"
        )


def isolation(edges: Edges, cutoff: float) -> Float[Tensor, " atom"]:
    """Return exp(−3 Σ_j u(r_ij/cutoff)) of every atom, u the switch of `short_range`.

    1 without neighbors; 0.08 for one of two atoms at a bond of half the cutoff; below
    1e-6 in surfaces of metals. Smooth, with two vanishing derivatives at the cutoff.
    """
    weights = switch_off(edges.lengths / cutoff)
    return torch.exp(-ISOLATION_DECAY * edges.sums(weights))


def _apart(
    edges: Edges, short_range: ShortRange
) -> tuple[Float[Tensor, " atom"], Edges]:
    """Return the repulsion of atoms, and the edges as a network may see them."""
    lengths, receivers = edges.lengths, edges.receivers
    first = edges.numbers.index_select(0, receivers)
    second = edges.numbers.index_select(0, edges.senders)
    near = None
    if edges.compact:  # few atoms are ever that near, mostly none
        near = (lengths < short_range.reach(first, second)).nonzero().squeeze(-1)
        if not near.shape[0]:
            return lengths.new_zeros(edges.n_atoms), edges
        lengths, receivers, first, second = (
            one.index_select(0, near) for one in (lengths, receivers, first, second)
        )
    halves = short_range.energies(lengths, first, second) / 2
    energy = lengths.new_zeros(edges.n_atoms).index_add(0, receivers, halves)
    seen = short_range.seen(lengths, first, second)
    factor = seen / lengths
    if near is not None:
        seen = edges.lengths.index_copy(0, near, seen)
        factor = torch.ones_like(edges.lengths).index_copy(0, near, factor)
    vectors = edges.vectors * factor.unsqueeze(-1)
    return energy, edges._replace(vectors=vectors, lengths=seen)


def _check(name: str, value: Any, hint: Any) -> None:
    choices = get_args(hint)
    if choices:
        if value not in choices:
            expected = ", ".join(map(repr, choices))
            raise ValueError(f"{name} is {value!r}; expected one of {expected}")
        return
    kinds = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}[hint]
    if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(
            f"{name} is {value!r}; expected a value of kind {hint.__name__}"
        )
