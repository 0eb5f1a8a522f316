"""Langevin chains of a model at one temperature: settings, engine, recorded frames."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from crack_md.calculators.replicas.langevin import Langevin
from crack_md.calculators.replicas.replicas import Replicas
from crack_md.calculators.replicas.state import BlowUp
from crack_md.errors import ConfigError
from crack_md.workflows.sampling.metrics import block_error
from crack_md.workflows.sampling.temperature import Temperature

Structures = Float[np.ndarray, "chain atom 3"]
RestartFrames = Float[np.ndarray, "start atom 3"]
MIN_CHAINS = 4
MIN_FRAMES = 8


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


class ChainReplicas:
    """Copies of a molecule that move side by side, by any ASE calculator.

    A chain that blows up starts again by itself, from one of the frames given for that,
    and is counted. The rule is that of `Replicas` for every calculator: a value that is
    not finite, a structure that the model refuses, or a kinetic temperature that the
    bath does not reach by chance.

    Args:
        numbers: atomic numbers.
        starts: first positions; velocities are drawn at the temperature of the bath.
        calculator: any ASE calculator; one that takes many structures at once
            (``calculate_many``) is asked for all chains in one call.
        settings: bath, step and noise; chain i has the seed ``seed · 10⁶ + i``.
        restart_frames: what a chain that blew up starts again from.

    Raises:
        StructureError: the calculator refuses a start.
    """

    def __init__(
        self,
        numbers: Int[np.ndarray, " atom"],
        starts: Structures,
        calculator: BaseCalculator,
        settings: LangevinSettings,
        restart_frames: RestartFrames,
    ) -> None:
        frames = [Atoms(numbers, frame) for frame in restart_frames]
        self._shape = starts.shape
        self._replicas = Replicas(
            [Atoms(numbers, start) for start in starts],
            calculator,
            Langevin(
                settings.temperature_K, settings.friction_per_ps, settings.timestep_fs
            ),
            seeds=range(
                settings.seed * 1_000_000, settings.seed * 1_000_000 + len(starts)
            ),
            restart_frames=[frames] * len(starts),
        )

    @property
    def step_count(self) -> int:
        """Return the number of steps taken."""
        return int(self._replicas.state.step_count)

    @property
    def positions(self) -> Structures:
        """Return where the atoms are, in Å."""
        return np.asarray(self._replicas.state.positions).reshape(self._shape)

    @property
    def energies(self) -> Float[np.ndarray, " chain"]:
        """Return the potential energies in eV."""
        return np.asarray(self._replicas.state.energies)

    @property
    def temperatures(self) -> Float[np.ndarray, " chain"]:
        """Return kinetic temperatures in K, over 3N degrees of freedom."""
        return np.asarray(self._replicas.temperatures)

    @property
    def ages(self) -> Int[np.ndarray, " chain"]:
        """Return the steps since each chain started, or started again."""
        return np.asarray(self._replicas.state.steps_since_start)

    @property
    def blow_ups(self) -> tuple[BlowUp, ...]:
        """Return all blow-ups so far."""
        return self._replicas.state.blow_ups

    def advance(self, n_steps: int) -> None:
        """Take some steps; chains that blow up start again."""
        self._replicas.run(n_steps)

    def restart(self, reasons: Mapping[int, str]) -> None:
        """Count these chains as blown up and let them start again.

        Raises:
            StructureError: the model refuses what they start from.
        """
        self._replicas.restart(reasons)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return all that is needed to go on bit for bit."""
        return dict(self._replicas.state_dict())

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state of the same molecule and number of chains."""
        self._replicas.load_state_dict(arrays)


@dataclass(frozen=True)
class SamplingSettings:
    """How many chains, how long, and how they move.

    Raises:
        ConfigError: a value that no run can have.
    """

    temperature_K: float
    n_chains: int = 16
    steps: int = 40_000
    """Steps of every chain."""
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
class SampledChains:
    """Recorded frames of all chains; the first half of them started typically."""

    settings: SamplingSettings
    positions: Float[np.ndarray, "chain frame atom 3"]
    """Å."""
    energies: Float[np.ndarray, "chain frame"]
    """Potential energies by the model, eV."""
    temperatures: Float[np.ndarray, "chain frame"]
    """Kinetic temperatures, K."""
    ages: Int[np.ndarray, "chain frame"]
    """Steps since the chain started, or started again."""
    blow_ups: tuple[BlowUp, ...]

    @property
    def counts(self) -> Bool[np.ndarray, "chain frame"]:
        """Return which frames count: those that are far enough from a start."""
        return self.ages > self.settings.n_discarded

    @property
    def survivors(self) -> Bool[np.ndarray, " chain"]:
        """Return which chains never blew up."""
        alive = np.ones(len(self.positions), dtype=bool)
        alive[[event.replica for event in self.blow_ups]] = False
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
    ) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, " time"]]:
        """Return times in ps, and the share of chains that lived until then."""
        firsts: dict[int, int] = {}
        for event in self.blow_ups:
            firsts.setdefault(event.replica, event.step)
        last = self.positions.shape[1] * self.settings.record_every
        steps = np.array([0, *sorted(firsts.values()), last])
        alive = len(self.positions) - np.arange(len(steps))
        alive[-1] = alive[-2] if len(steps) > 1 else alive[0]
        times = steps * self.settings.timestep_fs / 1000.0
        return times, alive / len(self.positions)
