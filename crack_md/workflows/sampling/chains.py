"""Chains of a model at one temperature: what they are, and what they leave behind."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from crack_md.errors import ConfigError
from crack_md.workflows.sampling.convergence import block_error
from crack_md.workflows.sampling.dynamics import BlowUp, LangevinSettings
from crack_md.workflows.sampling.thermometers import Temperature

MIN_CHAINS = 4
MIN_FRAMES = 8


@dataclass(frozen=True)
class SamplingSettings:
    """How many chains, how long, and how they move.

    Raises:
        ConfigError: a value that no run can have.
    """

    temperature_K: float
    n_chains: int = 16
    steps: int = 40_000
    """Of every chain."""
    timestep_fs: float = 0.5
    friction_per_ps: float = 10.0
    seed: int = 0
    record_every: int = 20
    """Steps between frames."""
    discard: int | None = None
    """First steps of every chain that do not count; None: a fifth of them."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        self.langevin()
        if self.n_chains < MIN_CHAINS:
            raise ConfigError(
                f"{self.n_chains} chains; expected {MIN_CHAINS} or more: with fewer it "
                "cannot be told whether they agree"
            )
        if self.record_every < 1:
            raise ConfigError(
                f"record_every is {self.record_every}; expected 1 or more"
            )
        kept = (self.steps - self.n_discarded) // self.record_every
        if self.n_discarded < 0 or kept < MIN_FRAMES:
            raise ConfigError(
                f"{self.steps} steps, {self.n_discarded} of them discarded and one in "
                f"{self.record_every} recorded, leave {max(kept, 0)} frames of a "
                f"chain; expected {MIN_FRAMES} or more"
            )

    @property
    def n_discarded(self) -> int:
        """Return the number of first steps that do not count."""
        return self.steps // 5 if self.discard is None else self.discard

    def langevin(self) -> LangevinSettings:
        """Return what an engine must know."""
        return LangevinSettings(
            self.temperature_K, self.timestep_fs, self.friction_per_ps, self.seed
        )

    def conditions(self) -> dict[str, Any]:
        """Return what two runs must share for one to go on with the other."""
        return {
            "temperature_K": self.temperature_K,
            "n_chains": self.n_chains,
            "timestep_fs": self.timestep_fs,
            "friction_per_ps": self.friction_per_ps,
            "seed": self.seed,
            "record_every": self.record_every,
        }


@dataclass(frozen=True)
class Chains:
    """Recorded frames of all chains; the first half of them started typically."""

    settings: SamplingSettings
    positions: Float[NDArray[np.float32], "chain frame atom 3"]
    """Å."""
    energies: Float[NDArray[np.float64], "chain frame"]
    """Potential energies by the model, eV."""
    temperatures: Float[NDArray[np.float64], "chain frame"]
    """Kinetic temperatures, K."""
    ages: Int[NDArray[np.int64], "chain frame"]
    """Steps since the chain started, or started again."""
    blow_ups: tuple[BlowUp, ...]

    @property
    def counts(self) -> Bool[NDArray[np.bool_], "chain frame"]:
        """Return which frames count: those that are far enough from a start."""
        return self.ages > self.settings.n_discarded

    @property
    def survivors(self) -> Bool[NDArray[np.bool_], " chain"]:
        """Return which chains never blew up."""
        alive = np.ones(len(self.positions), dtype=bool)
        alive[[event.chain for event in self.blow_ups]] = False
        return alive

    @property
    def survival(self) -> float:
        """Return the share of chains that never blew up."""
        return float(self.survivors.mean())

    @property
    def kinetic_temperature(self) -> Temperature:
        """Return the mean over frames that count; its error from the chains' means."""
        means = [
            values[counts].mean()
            for values, counts in zip(self.temperatures, self.counts, strict=True)
            if counts.any()
        ]
        if not means:
            return Temperature(float("nan"), float("nan"))
        return Temperature(
            float(np.mean(means)), block_error(np.array(means), n_blocks=len(means))
        )

    def survival_curve(
        self,
    ) -> tuple[
        Float[NDArray[np.float64], " time"], Float[NDArray[np.float64], " time"]
    ]:
        """Return times in ps, and the share of chains that lived until then."""
        firsts: dict[int, int] = {}
        for event in self.blow_ups:
            firsts.setdefault(event.chain, event.step)
        last = self.positions.shape[1] * self.settings.record_every
        steps = np.array([0, *sorted(firsts.values()), last])
        alive = len(self.positions) - np.arange(len(steps))
        alive[-1] = alive[-2] if len(steps) > 1 else alive[0]
        times = steps * self.settings.timestep_fs / 1000.0
        return times, alive / len(self.positions)
