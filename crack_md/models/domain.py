"""What the training data covers: node features, and how near atoms have come.

For atoms of an element with training features of mean μ and covariance Σ in C channels,

    d(z) = √[(z - μ)ᵀ Σ⁻¹ (z - μ) / C]

is about 1 inside the training data. Σ is shrunk towards its mean variance, the more the
fewer atoms there are. The limit of an element is what 999 of 1,000 training atoms stay
below; beyond it an atom has surroundings that the model was hardly trained on. One
ellipsoid per element is coarse: it finds gross departures, not every one.

Nearer than atoms have come in training a model answers out of its repulsion, or out of
nothing. The measure of a structure is

    domain distance = max over pairs of (shortest distance in training) / (distance)

so 1 is the nearest that is known and above 1 is outside, as for all distances of this
package. Pairs of elements that never came within 5 Å in training are measured by 0.8
of the sum of their covalent radii, where bonds end and the repulsion begins.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.errors import CheckpointError
from crack_md.graph import AtomGraph, edge_vectors
from crack_md.models.short_range import OUTER
from crack_md.neighbors import all_pairs

QUANTILE = 0.999
FEWEST_ATOMS = 2
MOST_ELEMENTS = 118

Features = Float[np.ndarray, "atom channel"]


@dataclass(frozen=True, eq=False)
class ElementStatistics:
    """Training features of one element."""

    mean: Float[np.ndarray, " channel"]
    precision: Float[np.ndarray, "channel channel"]
    limit: float
    n_atoms: int

    @classmethod
    def of(cls, features: Features) -> "ElementStatistics":
        """Return the statistics of the atoms of one element; at least two."""
        n_atoms, n_channels = features.shape
        mean = features.mean(axis=0)
        covariance = np.cov(features, rowvar=False).reshape(n_channels, n_channels)
        shrinkage = max(1e-3, n_channels / (n_channels + n_atoms))
        variance = float(np.trace(covariance)) / n_channels or 1.0
        target = variance * np.eye(n_channels)
        shrunk = (1 - shrinkage) * covariance + shrinkage * target
        unlimited = cls(mean, np.linalg.inv(shrunk), 1.0, n_atoms)
        limit = float(np.quantile(unlimited.distance(features), QUANTILE)) or 1.0
        return cls(mean, unlimited.precision, limit, n_atoms)

    def distance(self, features: Features) -> Float[np.ndarray, " atom"]:
        """Return d in units of the limit: beyond 1 is unlike training."""
        apart = features - self.mean
        squared = np.einsum("ai,ij,aj->a", apart, self.precision, apart)
        return np.asarray(np.sqrt(squared / features.shape[1]) / self.limit)


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Training features of all elements of a model."""

    elements: Mapping[int, ElementStatistics]

    @classmethod
    def of(
        cls, features: Features, numbers: Int[np.ndarray, " atom"]
    ) -> "FeatureStatistics":
        """Return the statistics of training atoms, by atomic number.

        Elements with a single atom have none.
        """
        counts = {int(z): int((numbers == z).sum()) for z in np.unique(numbers)}
        return cls(
            {
                z: ElementStatistics.of(features[numbers == z])
                for z, count in counts.items()
                if count >= FEWEST_ATOMS
            }
        )

    def distance(
        self, features: Features, numbers: Int[np.ndarray, " atom"]
    ) -> Float[np.ndarray, " atom"]:
        """Return the distance of every atom; infinite for an unknown element."""
        distances = np.full(len(numbers), np.inf)
        for z in np.unique(numbers):
            if int(z) in self.elements:
                mine = numbers == z
                distances[mine] = self.elements[int(z)].distance(features[mine])
        return distances

    def plain(self) -> dict[int, dict[str, Any]]:
        """Return plain containers and tensors, for a model file."""
        return {
            z: {
                "mean": torch.tensor(entry.mean, dtype=torch.float32),
                "precision": torch.tensor(entry.precision, dtype=torch.float32),
                "limit": entry.limit,
                "n_atoms": entry.n_atoms,
            }
            for z, entry in self.elements.items()
        }

    @classmethod
    def from_plain(
        cls, content: Mapping[int, Mapping[str, Any]]
    ) -> "FeatureStatistics":
        """Return what `plain` was made from.

        Raises:
            CheckpointError: a part is missing, or of the wrong kind or shape.
        """
        try:
            if len(content) > MOST_ELEMENTS:
                raise ValueError(f"{len(content)} elements")
            read = cls(
                {
                    int(z): ElementStatistics(
                        entry["mean"].double().numpy(),
                        entry["precision"].double().numpy(),
                        float(entry["limit"]),
                        int(entry["n_atoms"]),
                    )
                    for z, entry in content.items()
                }
            )
            for z, entry in read.elements.items():
                shape = (*entry.mean.shape, *entry.precision.shape)
                numbers = (entry.mean, entry.precision, entry.limit)
                if len(set(shape)) > 1 or len(shape) != 3 or not entry.limit > 0:
                    raise ValueError(f"element {z} has shapes {shape}")
                if not all(np.isfinite(one).all() for one in numbers):
                    raise ValueError(f"element {z} has values that are not finite")
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the model's feature statistics cannot be read ({error!r}); make them "
                "again with crack-md domain"
            ) from error
        return read


REACH_A = 5.0
"""Å; pairs that are always farther apart count as never met."""
ROUNDING = 1e-3
"""Å; distances are stored rounded down, so that no training frame is outside."""


@dataclass(frozen=True)
class ShortestDistances:
    """The shortest distance in training of each pair of elements.

    Raises:
        CheckpointError: a distance that is not positive, or an unknown element.
    """

    pairs: Mapping[tuple[int, int], float]
    """Å, by atomic numbers, the smaller one first."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for (first, second), distance in self.pairs.items():
            known = 0 < first <= second < len(chemical_symbols)
            if not (known and 0 < distance < math.inf):
                raise CheckpointError(
                    f"the model's shortest distances have {distance!r} Å for elements "
                    f"{first!r} and {second!r}; expected a positive distance of two "
                    "atomic numbers, the smaller first"
                )

    @classmethod
    def of(cls, structures: Iterable[Atoms]) -> "ShortestDistances":
        """Return the shortest distances below `REACH_A` in all structures."""
        shortest: dict[tuple[int, int], float] = {}
        for atoms in structures:
            found = all_pairs(atoms, REACH_A)
            ends = atoms.numbers[np.stack([found.receiver, found.sender])]
            ends = np.sort(ends, axis=0)
            codes = ends[0] * len(chemical_symbols) + ends[1]
            order = np.lexsort((found.distance, codes))
            kinds, first = np.unique(codes[order], return_index=True)
            for code, distance in zip(kinds, found.distance[order][first], strict=True):
                pair = divmod(int(code), len(chemical_symbols))
                shortest[pair] = min(float(distance), shortest.get(pair, math.inf))
        return cls(
            {
                pair: math.floor(shortest[pair] / ROUNDING) * ROUNDING
                for pair in sorted(shortest)
                if shortest[pair] >= ROUNDING
            }
        )

    def limit(self, first: int, second: int) -> float:
        """Return the shortest distance that is known of two elements, in Å."""
        pair = (min(first, second), max(first, second))
        radii = float(covalent_radii[first] + covalent_radii[second])
        return self.pairs.get(pair, OUTER * radii)

    def table(self, num_elements: int) -> Float[Tensor, "element element"]:
        """Return `limit` by atomic numbers."""
        radii = torch.from_numpy(covalent_radii[:num_elements].copy())
        table = OUTER * (radii.unsqueeze(0) + radii.unsqueeze(1))
        for (first, second), distance in self.pairs.items():
            if second < num_elements:
                table[first, second] = table[second, first] = distance
        return table

    def plain(self) -> list[list[int | float]]:
        """Return plain containers, for a model file and JSON."""
        return [[first, second, value] for (first, second), value in self.pairs.items()]

    @classmethod
    def from_plain(cls, content: Iterable[Any]) -> "ShortestDistances":
        """Return what `plain` was made from.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            rows = [(int(a), int(b), float(value)) for a, b, value in content]
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the model's shortest distances cannot be read ({error!r}); make them "
                "again with crack-md domain"
            ) from error
        return cls({(first, second): value for first, second, value in rows})


def nearness(
    graph: AtomGraph, table: Float[Tensor, "element element"]
) -> Float[Tensor, "atom slot"]:
    """Return limit / distance of every neighbor, 0 in empty slots.

    Args:
        graph: of any structures.
        table: of `ShortestDistances`, on the device of the graph.
    """
    with torch.no_grad():
        lengths = torch.linalg.vector_norm(edge_vectors(graph), dim=-1)
        numbers = graph.atomic_numbers
        limits = table[numbers.unsqueeze(1), numbers[graph.neighbors]]
        near = limits.to(lengths.dtype) / lengths
        return torch.where(graph.mask, near, torch.zeros_like(near))
