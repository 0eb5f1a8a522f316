"""Settings of a phonon calculation, and its results."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from jaxtyping import Float

from crack_md.errors import ConfigError, StructureError

MIN_LENGTH_A = 15.0
THZ_TO_PER_CM = 1e12 / (units._c * 100.0)
IMAGINARY_THZ = -0.01
"""Below this a mode is unstable; above, it is a zero with noise."""


@dataclass(frozen=True)
class PhononSettings:
    """How phonons are computed.

    Raises:
        ConfigError: a value that cannot be.
    """

    supercell: tuple[int, int, int] | None = None
    """Repeats of the cell; None: as many as ``min_length_A`` asks for."""
    min_length_A: float = MIN_LENGTH_A
    displacement_A: float = 0.01
    spacing_per_A: float = 0.005
    """Distance of points along the path of bands, in 1/Å (without 2π)."""
    mesh_length_A: float = 100.0
    """Mesh of the density of states, as phonopy counts it."""
    max_temperature_K: float = 1000.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.supercell is not None and min(self.supercell) < 1:
            raise ConfigError(f"supercell is {self.supercell}; expected 1 or more")
        for name in (
            "min_length_A",
            "displacement_A",
            "spacing_per_A",
            "mesh_length_A",
            "max_temperature_K",
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected a positive number"
                )

    def repeats(self, atoms: Atoms) -> tuple[int, int, int]:
        """Return how often the cell is repeated along each vector.

        Raises:
            StructureError: the structure is no crystal.
        """
        if not atoms.pbc.all():
            raise StructureError(
                f"phonons need a crystal, periodic along all three cell vectors; its "
                f"pbc is {atoms.pbc.tolist()} (for modes of a molecule on a slab use "
                "--adsorbate-modes)"
            )
        if self.supercell is not None:
            return self.supercell
        a, b, c = np.ceil(self.min_length_A / atoms.cell.lengths() - 1e-6).astype(int)
        return int(a), int(b), int(c)

    def conditions(self) -> dict[str, Any]:
        """Return what two runs must share for one to continue the other."""
        return asdict(self)


@dataclass(frozen=True)
class ImaginaryMode:
    """A way to go down from the structure."""

    label: str
    """High-symmetry point, such as ``X``, or the segment the point lies on."""
    q: tuple[float, float, float]
    """In reciprocal vectors of the primitive cell."""
    branch: int
    """From 1, the lowest."""
    frequency_THz: float
    """Negative, for imaginary."""
    frequency_per_cm: float
    commensurate: bool
    """Whether the supercell holds it exactly; others are interpolated."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One straight piece of the path through the Brillouin zone."""

    labels: tuple[str, str]
    q: Float[np.ndarray, "point 3"]
    distance: Float[np.ndarray, " point"]
    """1/Å along the whole path."""
    frequency_THz: Float[np.ndarray, "point branch"]


@dataclass(frozen=True, eq=False)
class DensityOfStates:
    """Density of states, in states per THz and primitive cell."""

    frequency_THz: Float[np.ndarray, " bin"]
    states_per_THz: Float[np.ndarray, " bin"]


@dataclass(frozen=True, eq=False)
class Thermodynamics:
    """Harmonic thermodynamics per primitive cell."""

    temperature_K: Float[np.ndarray, " temperature"]
    free_energy_eV: Float[np.ndarray, " temperature"]
    entropy_eV_per_K: Float[np.ndarray, " temperature"]
    heat_capacity_eV_per_K: Float[np.ndarray, " temperature"]
    zero_point_energy_eV: float


@dataclass(frozen=True, eq=False)
class Phonons:
    """Phonons of one crystal."""

    segments: tuple[Segment, ...]
    density: DensityOfStates
    thermal: Thermodynamics
    imaginary: tuple[ImaginaryMode, ...]
    """Worst first."""
    asymmetry: float
    """‖Φ − Φᵀ‖ / ‖Φ‖ of the force constants, before they are symmetrised."""
    sum_rule_eV_per_A2: float
    """Largest violation of Σ_i Φ_ij = 0, before."""
    n_atoms: int
    """Of the primitive cell."""
    repeats: tuple[int, int, int] | None

    @property
    def max_frequency(self) -> float:
        """Return the highest frequency along the path in THz."""
        return max(float(s.frequency_THz.max()) for s in self.segments)

    @property
    def min_frequency(self) -> float:
        """Return the lowest frequency along the path in THz, negative for imaginary."""
        return min(float(s.frequency_THz.min()) for s in self.segments)
