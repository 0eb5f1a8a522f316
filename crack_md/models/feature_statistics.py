"""How far node features lie from those of the training data, element by element.

For atoms of an element with training features of mean μ and covariance Σ in C channels,

    d(z) = √[(z - μ)ᵀ Σ⁻¹ (z - μ) / C]

is about 1 inside the training data. Σ is shrunk towards its mean variance, the more the
fewer atoms there are. The limit of an element is what 999 of 1,000 training atoms stay
below; beyond it an atom has surroundings that the model was hardly trained on. One
ellipsoid per element is coarse: it finds gross departures, not every one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from crack_md.errors import CheckpointError

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
