"""A small, fast student for one molecule: a function of all its distances.

With x the inverse distances of all pairs of atoms, standardised over training frames,
and G the permutations of atoms that leave the bond graph as it is,

    E = 1/|G| Σ_{g ∈ G} f(g x),    f a network of a few layers

is exact under rotations, reflections and every exchange of atoms that are alike, such
as the hydrogens of a methyl group (ethanol: |G| = 12). Averages over a group make any
function symmetric, and leave it as flexible as it was: J. S. Frank, O. T. Unke, K.-R.
Müller, S. Chmiela, arXiv:2205.14110, and permutations from a molecular graph: S.
Chmiela, H. E. Sauceda, K.-R. Müller, A. Tkatchenko, Nat. Commun. 9, 3887 (2018).

It knows one molecule with its atoms in one order, and nothing else. Energies and
features are those of the whole, shared out equally to atoms.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crack_md.errors import ConfigError, StructureError
from crack_md.graph import AtomGraph
from crack_md.models.network import Architecture, Edges, Network, NetworkOutput
from crack_md.models.short_range import ShortRangeKind
from crack_md.neighbors import AllNeighbors

MOST_PERMUTATIONS = 120
"""Beyond so many equivalent orders of atoms this is no fast student any more."""
BROKEN = 1.6
"""Times the sum of covalent radii: longer bonds mean other atoms, or another order. The
second neighbors of a carbon begin there, and the sampling check's blow-ups before."""
SMALLEST_SPREAD = 0.01
"""Å⁻¹, of an inverse distance: stiff ones shall not be blown up by their noise."""

Bonds = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class MolecularConfig(Architecture):
    """Every choice that changes the function or the parameters of the network.

    The molecule is found in the training data; in files it stands beside the weights.
    """

    limits: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {"hidden_channels": (1, 4096), "num_layers": (1, 8)}
    )

    name: Literal["molecular"] = "molecular"
    cutoff: float = 50.0
    """Å; the molecule is shorter. Empty slots of padded tables have this length."""
    short_range: ShortRangeKind = "zbl"
    forces: Literal["gradient"] = "gradient"
    hidden_channels: int = 96
    num_layers: int = 2
    """Hidden ones."""
    atoms: str = ""
    """Chemical symbols in the order of the atoms, such as "O H H"."""
    bonds: str = ""
    """Pairs of atoms, counted from zero, such as "0-1 0-2"."""

    def __post_init__(self) -> None:
        """Refuse what no network can be built of."""
        super().__post_init__()
        if unknown := set(self.atoms.split()) - set(atomic_numbers):
            raise ValueError(f"atoms has {min(unknown)!r}, which is no element")
        if not re.fullmatch(r"(\d{1,4}-\d{1,4}( |$))*", self.bonds):
            raise ValueError(f"bonds is {self.bonds[:40]!r}; expected '0-1 0-2 ...'")
        if any(not i < j < len(self.numbers) for i, j in self.bonded):
            raise ValueError(
                f"bonds has a pair that is not i-j with i < j < {len(self.numbers)}, "
                "the number of atoms"
            )

    @property
    def rule(self) -> AllNeighbors:
        """Return the rule: all atoms of the molecule see each other."""
        return AllNeighbors()

    @property
    def feature_channels(self) -> int:
        """Return the channels of the node features."""
        return self.hidden_channels

    @property
    def summary(self) -> str:
        """Return the sizes in a few words."""
        formula = Atoms(self.atoms.split()).get_chemical_formula()
        return f"one molecule, {formula}, {self.hidden_channels} channels"

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Return the atomic numbers in the order of the atoms."""
        return tuple(atomic_numbers[symbol] for symbol in self.atoms.split())

    @cached_property
    def bonded(self) -> Bonds:
        """Return the bonded pairs i < j."""
        pairs = (one.split("-") for one in self.bonds.split())
        return tuple((int(i), int(j)) for i, j in pairs)

    @cached_property
    def _longest(self) -> Float[np.ndarray, " bond"]:
        radii = covalent_radii[list(self.numbers)]
        return BROKEN * np.array([radii[i] + radii[j] for i, j in self.bonded])

    def refusal(self, atoms: Atoms) -> str | None:
        """Return why a structure is not this molecule, or None."""
        if tuple(atoms.numbers.tolist()) != self.numbers:
            return (
                f"the model is one of the molecule {self.atoms} in this order of "
                f"atoms, and the structure is {' '.join(atoms.symbols[:12])}"
                f"{' ...' if len(atoms) > 12 else ''}; take atoms as in its training "
                "data, or a model for many structures (ace, painn)"
            )
        if not self.broken(atoms.positions[None])[0]:
            return None
        lengths = self._lengths(atoms.positions[None])[0]
        worst = int(np.argmax(lengths - self._longest))
        i, j = self.bonded[worst]
        return (
            f"atoms {i} and {j} are {lengths[worst]:.2f} Å apart and bonded in the "
            "model's molecule: it has come apart, or its atoms are in another order "
            "than in the training data"
        )

    def broken(
        self, frames: Float[np.ndarray, "frame atom 3"]
    ) -> Bool[np.ndarray, " frame"]:
        """Return in which frames (Å) a bond is longer than bonds can be."""
        if not self.bonded:
            return np.zeros(len(frames), dtype=bool)
        return np.asarray((self._lengths(frames) > self._longest).any(axis=1))

    def _lengths(
        self, frames: Float[np.ndarray, "frame atom 3"]
    ) -> Float[np.ndarray, "frame bond"]:
        first, second = np.array(self.bonded).T
        return np.asarray(np.linalg.norm(frames[:, first] - frames[:, second], axis=-1))


def symmetric_permutations(
    numbers: Sequence[int], bonds: Bonds
) -> Int[np.ndarray, "permutation atom"]:
    """Return all permutations of atoms that keep elements and bonds, identity first.

    Raises:
        ValueError: there are more than `MOST_PERMUTATIONS`.
    """
    n_atoms = len(numbers)
    adjacent = np.zeros((n_atoms, n_atoms), dtype=bool)
    for i, j in bonds:
        adjacent[i, j] = adjacent[j, i] = True
    kinds = list(zip(numbers, adjacent.sum(axis=1).tolist(), strict=True))

    def extended(start: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        place = len(start)
        if place == n_atoms:
            yield start
            return
        for atom in range(n_atoms):
            if (
                atom not in start
                and kinds[atom] == kinds[place]
                and (adjacent[atom, list(start)] == adjacent[place, :place]).all()
            ):
                yield from extended((*start, atom))

    found = []
    for one in extended(()):
        found.append(one)
        if len(found) > MOST_PERMUTATIONS:
            raise ValueError(
                f"the molecule has more than {MOST_PERMUTATIONS} permutations of "
                "equivalent atoms; use architecture 'ace' or 'painn'"
            )
    return np.array(found)


class Molecular(Network):
    """The network: inverse distances, in every equivalent order, to one energy.

    Raises:
        ValueError: the configuration names no molecule.
    """

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {"blocks": ("hidden.",), "energy_head": ("energy.",)}
    )

    config: MolecularConfig
    mean: Tensor
    spread: Tensor
    first: Tensor
    second: Tensor
    orders: Tensor
    numbers: Tensor

    def __init__(self, config: MolecularConfig) -> None:
        super().__init__(config)
        n_atoms = len(config.numbers)
        if n_atoms < 2:
            raise ValueError(f"atoms is {config.atoms!r}; expected a molecule")
        first, second = np.triu_indices(n_atoms, k=1)
        place = np.zeros((n_atoms, n_atoms), dtype=np.int64)
        place[first, second] = place[second, first] = np.arange(len(first))
        group = symmetric_permutations(config.numbers, config.bonded)
        for name, values in {
            "numbers": np.array(config.numbers),
            "first": first,
            "second": second,
            "orders": place[group[:, first], group[:, second]],
        }.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.register_buffer("mean", torch.zeros(len(first)))
        self.register_buffer("spread", torch.ones(len(first)))
        sizes = [len(first), *[config.hidden_channels] * config.num_layers]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.SiLU()]
        self.hidden = nn.Sequential(*layers)
        self.energy = nn.Linear(config.hidden_channels, 1)

    def standardise(self, frames: Float[np.ndarray, "frame atom 3"]) -> None:
        """Take mean and spread of inverse distances from training frames, in Å."""
        first, second = np.triu_indices(len(self.config.numbers), k=1)
        inverse = 1 / np.linalg.norm(frames[:, first] - frames[:, second], axis=-1)
        alike = inverse[:, self.orders.cpu().numpy()].reshape(-1, len(first))
        self.mean.copy_(torch.from_numpy(alike.mean(axis=0)))
        spread = alike.std(axis=0).clip(min=SMALLEST_SPREAD)
        self.spread.copy_(torch.from_numpy(spread))

    def forward(
        self,
        graph: AtomGraph,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        compact: bool | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Return raw energies and features; the table of neighbors tells nothing new.

        Raises:
            StructureError: the atoms are not those of whole molecules.
        """
        n_atoms = len(self.config.numbers)
        n_molecules = graph.n_atoms // n_atoms
        if not (graph.mask.is_cuda or torch.compiler.is_compiling()):
            self._check(graph)
        # padded graphs have atoms behind those of molecules
        places = graph.positions[: n_molecules * n_atoms].view(n_molecules, n_atoms, 3)
        vectors = places.index_select(1, self.second)
        vectors = vectors - places.index_select(1, self.first)
        squares = vectors.to(graph.cell_shift.dtype).square().sum(dim=-1)
        lengths = torch.where(squares > 0, squares, 1.0).sqrt()
        pairs, lengths = self._apart(lengths)
        x = (1 / lengths - self.mean) / self.spread
        x = x.index_select(1, self.orders.flatten()).view(-1, len(self.mean))
        hidden = self.hidden(x)
        energy = self.energy(hidden).view(n_molecules, -1).mean(dim=1)
        features = hidden.view(n_molecules, len(self.orders), -1).mean(dim=1)

        def shared(values: Tensor) -> Tensor:
            rows = values.repeat_interleave(n_atoms, dim=0)
            spare = rows.new_zeros(graph.n_atoms - len(rows), *rows.shape[1:])
            return torch.cat([rows, spare])

        return NetworkOutput(
            shared(energy / n_atoms),
            None,
            shared(features).unsqueeze(1),
            None if pairs is None else shared(pairs / n_atoms),
        )

    def evaluate(
        self,
        edges: Edges,
        *,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
        recompute: bool = False,
    ) -> NetworkOutput:
        """Refuse to be exported as a function of edges.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a model of one molecule is no function of edges alone, and cannot be "
            "exported or compiled as one; use it by its calculator or its replicas"
        )

    def _apart(
        self, lengths: Float[Tensor, "molecule pair"]
    ) -> tuple[Float[Tensor, " molecule"] | None, Float[Tensor, "molecule pair"]]:
        """Return the repulsion of each molecule, and lengths as the network sees them.

        Few atoms are ever that near, mostly none.
        """
        if self.short_range is None:
            return None, lengths
        first = self.numbers.index_select(0, self.first)
        second = self.numbers.index_select(0, self.second)
        reach = self.short_range.reach(first, second)
        if not torch.compiler.is_compiling() and not (lengths < reach).any():
            return None, lengths
        energies = self.short_range.energies(lengths, first, second)
        seen = self.short_range.seen(lengths, first, second)
        return energies.sum(dim=1), seen

    def _check(self, graph: AtomGraph) -> None:
        n_atoms = len(self.numbers)
        whole = not graph.n_atoms % n_atoms and graph.mask.shape[1] == n_atoms - 1
        same = whole and bool(
            (graph.atomic_numbers.view(-1, n_atoms) == self.numbers).all()
        )
        if not same or graph.pbc.any():
            raise StructureError(
                f"a batch of {graph.n_atoms} atoms is not made of molecules "
                f"{self.config.atoms} in vacuum, all that this model knows"
            )
