"""Frames that a model should reproduce: one molecule, sampled at one temperature."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.errors import ConfigError, DataError

MIN_FRAMES = 16


@dataclass(frozen=True)
class Reference:
    """Frames of one molecule in vacuum, in the order of time.

    Raises:
        DataError: too few frames, or numbers that are not finite.
    """

    where: str
    """What the user named, for messages and records."""
    numbers: Int[NDArray[np.int64], " atom"]
    positions: Float[NDArray[np.float64], "frame atom 3"]
    """Å."""
    energies: Float[NDArray[np.float64], " frame"] | None = None
    """eV."""
    forces: Float[NDArray[np.float64], "frame atom 3"] | None = None
    """eV/Å."""
    temperature_K: float | None = None
    temperature_source: str = ""
    labels: str = ""
    """Which labels, where a file has several."""
    n_duplicates: int = 0
    """Frames that were left out because they are there already."""

    def __post_init__(self) -> None:
        """Refuse what cannot be a reference."""
        if len(self) < MIN_FRAMES:
            raise DataError(
                f"{self.where} has {len(self)} frames of its own; a distribution needs "
                f"{MIN_FRAMES} at the very least"
            )
        for name in ("positions", "energies", "forces"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                raise DataError(f"{self.where} has {name} that are not finite numbers")

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.positions)

    @property
    def known_temperature(self) -> float:
        """Return the temperature in K, which must be known by now.

        Raises:
            ConfigError: it is not.
        """
        if self.temperature_K is None or not self.temperature_K > 0:
            raise ConfigError(
                f"{self.where} does not say at which temperature it was sampled; give "
                "--temperature, in K"
            )
        return self.temperature_K

    @property
    def sha256(self) -> str:
        """Return the fingerprint of all frames and labels."""
        digest = hashlib.sha256(np.asarray(self.numbers, dtype="<i8").tobytes())
        for values in (self.positions, self.energies, self.forces):
            if values is not None:
                digest.update(np.asarray(values, dtype="<f8").tobytes())
        return digest.hexdigest()

    def select(self, frames: slice | Int[NDArray[np.int64], " chosen"]) -> "Reference":
        """Return some of the frames, with everything else as it is."""
        return replace(
            self,
            positions=self.positions[frames],
            energies=None if self.energies is None else self.energies[frames],
            forces=None if self.forces is None else self.forces[frames],
        )

    def thinned(self, most: int) -> "Reference":
        """Return at most so many frames, evenly spread over time."""
        if len(self) <= most:
            return self
        return self.select(np.linspace(0, len(self) - 1, most).round().astype(np.int64))
