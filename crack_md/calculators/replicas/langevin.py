"""Langevin dynamics by BAOAB: its settings, its steps as pure functions, its noise.

    m dv = F dt − γ m v dt + √(2 γ m kT) dW

One step is B A O A B, with c = exp(−γ Δt) and a standard normal ξ:

    B   v ← v + Δt/2 · F/m
    A   x ← x + Δt/2 · v
    O   v ← c v + √((1 − c²) kT/m) ξ

For a harmonic oscillator ⟨x²⟩ is exact at every time step, and ⟨v²⟩ too small by the
factor 1 − (ωΔt)²/4. Without friction the step is velocity Verlet.

B. Leimkuhler, C. Matthews, Applied Mathematics Research eXpress 2013, 34 (2013),
doi:10.1093/amrx/abs010.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from ase import units
from jaxtyping import Float

from crack_md.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", np.ndarray, Tensor)
else:
    Array = TypeVar("Array")  # workflows take this module without PyTorch

Atomic = Float[np.ndarray, "atom 3"]
PerAtom = Float[np.ndarray, "atom 1"]

Stream = Literal["step", "velocities", "start"]
STREAMS: dict[Stream, int] = {"step": 0, "velocities": 1, "start": 2}


@dataclass(frozen=True)
class Langevin:
    """How replicas move; a number holds for all of them, a sequence has one for each.

    Attributes:
        temperature_K: of the heat bath, and of velocities that are drawn.
        friction_per_ps: how fast the bath acts; 0 conserves the energy (NVE).
        timestep_fs: the same for all.

    Raises:
        ConfigError: a time step that is not positive.
    """

    temperature_K: float | Sequence[float]
    friction_per_ps: float | Sequence[float] = 1.0
    timestep_fs: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a time step that leads nowhere."""
        if not 0 < self.timestep_fs < math.inf:
            raise ConfigError(
                f"timestep_fs is {self.timestep_fs}; expected a positive number, such "
                "as 0.5 with hydrogen or 2 without"
            )


class Coefficients(NamedTuple, Generic[Array]):
    """What the steps need, for every atom, in ASE's units: arrays or tensors."""

    timestep: float
    inverse_mass: Float[Array, "atom 1"]
    """0 for atoms that do not move."""
    decay: Float[Array, "atom 1"]
    """c = exp(−γ Δt)."""
    noise: Float[Array, "atom 1"]
    """√((1 − c²) kT/m); 0 for atoms that do not move."""


def coefficients(
    temperature_K: PerAtom,
    friction_per_ps: PerAtom,
    inverse_mass: PerAtom,
    *,
    timestep_fs: float,
) -> Coefficients[np.ndarray]:
    """Return the coefficients of a step; an inverse mass of 0 holds an atom."""
    decay = np.exp(-friction_per_ps * timestep_fs / 1000)
    heat = units.kB * temperature_K * inverse_mass
    noise = np.sqrt((1 - decay**2) * heat)
    return Coefficients(timestep_fs * units.fs, inverse_mass, decay, noise)


def kick(
    velocities: Float[Array, "atom 3"],
    forces: Float[Array, "atom 3"],
    step: Coefficients[Array],
) -> Float[Array, "atom 3"]:
    """Return the velocities after B, half a step of the forces."""
    return velocities + step.timestep / 2 * forces * step.inverse_mass


def drift_and_mix(
    positions: Float[Array, "atom 3"],
    velocities: Float[Array, "atom 3"],
    noise: Float[Array, "atom 3"],
    step: Coefficients[Array],
) -> tuple[Float[Array, "atom 3"], Float[Array, "atom 3"]]:
    """Return positions and velocities after A O A."""
    positions = positions + step.timestep / 2 * velocities
    velocities = step.decay * velocities + step.noise * noise
    return positions + step.timestep / 2 * velocities, velocities


def generator(seed: int, step: int, stream: Stream) -> np.random.Generator:
    """Return random numbers that depend on seed, step and stream alone.

    They count instead of remembering: a replica has the same noise whatever runs beside
    it, and after a restart from its step number. Streams do not overlap: each has 2^64
    blocks of four numbers to itself.
    """
    return np.random.Generator(
        np.random.Philox(
            key=np.array([seed, 0], dtype=np.uint64),
            counter=np.array([0, step, STREAMS[stream], 0], dtype=np.uint64),
        )
    )


class NoiseSource:
    """The noise of steps, as `generator` gives it, without a new object each time."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(0)
        self._random = np.random.Generator(self._bits)

    def fill(self, seed: int, step: int, out: Atomic) -> None:
        """Write the standard normal numbers of a step (stream "step") into ``out``."""
        counter = np.array([0, step, STREAMS["step"], 0], dtype=np.uint64)
        self._bits.state = {
            "bit_generator": "Philox",
            "state": {"counter": counter, "key": np.array([seed, 0], dtype=np.uint64)},
            "buffer": np.zeros(4, dtype=np.uint64),
            "buffer_pos": 4,  # nothing of the buffer is left
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._random.standard_normal(out=out)


def maxwell_velocities(
    temperature_K: float,
    inverse_mass: PerAtom,
    random: np.random.Generator,
) -> Atomic:
    """Return velocities of the Maxwell-Boltzmann distribution, in ASE's units.

    The centre of mass moves like any other degree of freedom.
    """
    spread = np.sqrt(units.kB * temperature_K * inverse_mass)
    return spread * random.standard_normal((len(inverse_mass), 3))
