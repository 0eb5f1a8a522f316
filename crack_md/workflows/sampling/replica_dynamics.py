"""Chains as replicas of `crack_md.calculators`: one forward pass for all of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.calculators.langevin import Langevin, maxwell_velocities
from crack_md.calculators.replicas import Replicas
from crack_md.workflows.sampling.dynamics import (
    BlowUp,
    LangevinSettings,
    RestartFrames,
    Structures,
)


class ReplicaDynamics:
    """`ChainDynamics` by `crack_md.calculators.replicas.Replicas`.

    Args:
        numbers: atomic numbers.
        starts: first positions; velocities are drawn at the temperature of the bath.
        calculator: one that takes many structures at once, or any ASE calculator.
        settings: bath, step and noise; chain i has the seed ``seed · 10⁶ + i``.
        restart_frames: what a chain that blew up starts again from.

    Raises:
        StructureError: the calculator refuses a start.
    """

    def __init__(
        self,
        numbers: Int[NDArray[np.int64], " atom"],
        starts: Structures,
        calculator: BaseCalculator,
        settings: LangevinSettings,
        restart_frames: RestartFrames,
    ) -> None:
        frames = [Atoms(numbers, frame) for frame in restart_frames]
        self._shape = starts.shape
        self._frames = restart_frames
        self._settings = settings
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
    def energies(self) -> Float[NDArray[np.float64], " chain"]:
        """Return the potential energies in eV."""
        return np.asarray(self._replicas.state.energies)

    @property
    def temperatures(self) -> Float[NDArray[np.float64], " chain"]:
        """Return kinetic temperatures in K, over 3N degrees of freedom."""
        return np.asarray(self._replicas.temperatures)

    @property
    def ages(self) -> Int[NDArray[np.int64], " chain"]:
        """Return the steps since each chain started, or started again."""
        return np.asarray(self._replicas.state.steps_since_start)

    @property
    def blow_ups(self) -> tuple[BlowUp, ...]:
        """Return all blow-ups so far."""
        return tuple(BlowUp(*event) for event in self._replicas.state.blow_ups)

    def advance(self, n_steps: int) -> None:
        """Take some steps; chains that blow up start again."""
        self._replicas.run(n_steps)

    def restart(self, reasons: Mapping[int, str]) -> None:
        """Count these chains as blown up and let them start again.

        Raises:
            StructureError: the model refuses what they start from.
        """
        arrays = self._replicas.state_dict()
        for chain, reason in sorted(reasons.items()):
            rows = self._replicas.atoms.rows(chain)
            random = np.random.default_rng(
                [self._settings.seed, chain, self.step_count]
            )
            frame = self._frames[random.integers(len(self._frames))]
            arrays["positions"][rows] = frame
            arrays["velocities"][rows] = self._drawn(chain, random)
            arrays["steps_since_start"][chain] = 0
            for name, value in (
                ("replica", chain),
                ("step", self.step_count),
                ("reason", reason),
            ):
                key = f"blow_up_{name}"
                arrays[key] = np.array([*arrays[key].tolist(), value])
        self._replicas.load_state_dict(arrays)
        self._replicas.refresh()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return all that is needed to go on bit for bit."""
        return dict(self._replicas.state_dict())

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state of the same molecule and number of chains."""
        self._replicas.load_state_dict(arrays)

    def _drawn(
        self, chain: int, random: np.random.Generator
    ) -> Float[NDArray[np.float64], "atom 3"]:
        inverse_mass = self._replicas.atoms.inverse_mass[
            self._replicas.atoms.rows(chain)
        ]
        return np.asarray(
            maxwell_velocities(self._settings.temperature_K, inverse_mass, random)
        )
