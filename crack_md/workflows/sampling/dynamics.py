"""What moves chains: settings of Langevin dynamics, and what an engine has to offer."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.errors import ConfigError

Structures = Float[NDArray[np.float64], "chain atom 3"]
RestartFrames = Float[NDArray[np.float64], "start atom 3"]


@dataclass(frozen=True)
class LangevinSettings:
    """Heat bath, step and noise.

    Raises:
        ConfigError: a value that no run can have.
    """

    temperature_K: float
    timestep_fs: float = 0.5
    friction_per_ps: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, value in asdict(self).items():
            if name != "seed" and not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value!r}; expected a positive number")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; expected 0 or more")


class BlowUp(NamedTuple):
    """A chain that had to start again."""

    chain: int
    step: int
    reason: str


@runtime_checkable
class ChainDynamics(Protocol):
    """Copies of a molecule that move side by side.

    A chain that blows up starts again by itself, from one of the frames given for that,
    and is counted.
    """

    @property
    def step_count(self) -> int:
        """Return the number of steps taken."""

    @property
    def positions(self) -> Structures:
        """Return where the atoms are, in Å."""

    @property
    def energies(self) -> Float[NDArray[np.float64], " chain"]:
        """Return the potential energies in eV."""

    @property
    def temperatures(self) -> Float[NDArray[np.float64], " chain"]:
        """Return kinetic temperatures in K, over 3N degrees of freedom."""

    @property
    def ages(self) -> Int[NDArray[np.int64], " chain"]:
        """Return the steps since each chain started, or started again."""

    @property
    def blow_ups(self) -> tuple[BlowUp, ...]:
        """Return all blow-ups so far."""

    def advance(self, n_steps: int) -> None:
        """Take some steps."""

    def restart(self, reasons: Mapping[int, str]) -> None:
        """Count these chains as blown up and let them start again."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return all that is needed to go on, as plain arrays."""

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from such a state."""


BuildDynamics = Callable[
    [NDArray[np.int64], Structures, BaseCalculator, LangevinSettings, RestartFrames],
    ChainDynamics,
]
"""From numbers, starts, calculator, settings and frames to start again from."""
