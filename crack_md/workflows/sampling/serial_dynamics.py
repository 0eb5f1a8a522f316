"""Langevin dynamics of many copies of a molecule with any ASE calculator.

    B  p ← p + ½Δt F      A  x ← x + ½Δt p/m      O  p ← c p + √((1 − c²) m kT) ξ

in the order B A O A B with c = exp(−γΔt) (Leimkuhler and Matthews, J. Chem. Phys. 138,
174102 (2013)): positions of a harmonic oscillator have their exact variance at any Δt,
momenta are colder by the factor 1 − (ωΔt)²/4.

All of the noise of a chain follows from the seed, its number and the number of the
step, so that a run goes on as if it had never been stopped.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import units
from ase.calculators.calculator import BaseCalculator
from ase.data import atomic_masses
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crack_md.workflows.sampling.dynamics import (
    BlowUp,
    LangevinSettings,
    RestartFrames,
    Structures,
)
from crack_md.workflows.sampling.potential import Potential

MAX_FORCE = 50.0
"""eV/Å: beyond this nothing is bound any more."""


class SerialDynamics:
    """`ChainDynamics` with any ASE calculator.

    Args:
        numbers: atomic numbers.
        starts: first positions; momenta are drawn at the temperature of the bath.
        calculator: any ASE calculator.
        settings: bath, step and noise.
        restart_frames: what a chain that blew up starts again from.

    Raises:
        CrackError: the calculator refuses a start.
    """

    ARRAYS = ("positions", "momenta", "energies", "forces", "ages")

    def __init__(
        self,
        numbers: Int[NDArray[np.int64], " atom"],
        starts: Structures,
        calculator: BaseCalculator,
        settings: LangevinSettings,
        restart_frames: RestartFrames,
    ) -> None:
        self.settings = settings
        self.step_count = 0
        self.blow_ups: tuple[BlowUp, ...] = ()
        self.positions = starts.astype(np.float64)
        self.ages = np.zeros(len(starts), dtype=np.int64)
        self._potential = self._connect(numbers, calculator)
        self._masses = atomic_masses[numbers][:, None]
        self._frames = restart_frames
        first = self._potential.evaluate_all(self.positions)
        self.energies, self._forces = first.energies, first.forces
        self._momenta = np.stack([self._drawn(chain) for chain in range(len(starts))])

    @property
    def temperatures(self) -> Float[NDArray[np.float64], " chain"]:
        """Return kinetic temperatures in K, over 3N degrees of freedom."""
        kinetic = np.sum(self._momenta**2 / (2.0 * self._masses), axis=(1, 2))
        return 2.0 * kinetic / (3 * self.positions.shape[1] * units.kB)

    def advance(self, n_steps: int) -> None:
        """Take some steps; chains that blow up start again."""
        for _ in range(n_steps):
            self._step()

    def restart(self, reasons: Mapping[int, str]) -> None:
        """Count these chains as blown up and let them start again.

        Raises:
            CrackError: the calculator refuses what they start from.
        """
        events = [BlowUp(i, self.step_count, why) for i, why in sorted(reasons.items())]
        self.blow_ups = (*self.blow_ups, *events)
        chains = sorted(reasons)
        for chain in chains:
            random = self._random(chain, stream=2)
            self.positions[chain] = self._frames[random.integers(len(self._frames))]
            self._momenta[chain] = self._drawn(chain)
            self.ages[chain] = 0
        again = self._potential.evaluate_all(self.positions[chains])
        self.energies[chains], self._forces[chains] = again.energies, again.forces

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return all that is needed to go on bit for bit."""
        chains, steps, reasons = (
            [event[column] for event in self.blow_ups] for column in range(3)
        )
        return {
            "positions": self.positions.copy(),
            "momenta": self._momenta.copy(),
            "energies": self.energies.copy(),
            "forces": self._forces.copy(),
            "ages": self.ages.copy(),
            "step_count": np.array(self.step_count),
            "blow_up_chain": np.array(chains, dtype=np.int64),
            "blow_up_step": np.array(steps, dtype=np.int64),
            "blow_up_reason": np.array(reasons, dtype=str),
        }

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state of the same molecule and number of chains."""
        self.positions, self._momenta, self.energies, self._forces, self.ages = (
            np.array(arrays[name]) for name in self.ARRAYS
        )
        self.step_count = int(arrays["step_count"])
        columns = (arrays[f"blow_up_{name}"].tolist() for name in BlowUp._fields)
        self.blow_ups = tuple(BlowUp(*event) for event in zip(*columns, strict=True))

    def _connect(
        self, numbers: Int[NDArray[np.int64], " atom"], calculator: BaseCalculator
    ) -> Potential:
        return Potential(numbers, calculator)

    def _step(self) -> None:
        self.step_count += 1
        settings, half = self.settings, 0.5 * self.settings.timestep_fs * units.fs
        kept = np.exp(-settings.friction_per_ps * settings.timestep_fs / 1000.0)
        spread = np.sqrt(
            (1.0 - kept**2) * self._masses * units.kB * settings.temperature_K
        )
        shape = self.positions.shape[1:]
        noise = [
            self._random(chain, stream=0).standard_normal(shape)
            for chain in range(len(self.positions))
        ]
        with np.errstate(over="ignore", invalid="ignore"):  # blow-ups are found below
            p = self._momenta + half * self._forces
            x = self.positions + half * p / self._masses
            p = kept * p + spread * np.stack(noise)
            x = x + half * p / self._masses
            found = self._potential.evaluate(x)
            self._momenta = p + half * found.forces
        self.positions, self.energies, self._forces = x, found.energies, found.forces
        self.ages = self.ages + 1
        reasons: dict[int, str] = {i: str(e) for i, e in found.errors.items()}
        largest = np.linalg.norm(found.forces, axis=-1).max(axis=1)
        for chain in np.flatnonzero(~(largest <= MAX_FORCE)).tolist():
            reasons.setdefault(chain, f"a force of {largest[chain]:.0f} eV/Å")
        if reasons:
            self.restart(reasons)

    def _drawn(self, chain: int) -> Float[NDArray[np.float64], "atom 3"]:
        """Return momenta of the Maxwell–Boltzmann distribution."""
        width = np.sqrt(self._masses * units.kB * self.settings.temperature_K)
        shape = self.positions.shape[1:]
        return np.asarray(width * self._random(chain, stream=1).standard_normal(shape))

    def _random(self, chain: int, *, stream: int) -> np.random.Generator:
        """Return random numbers that depend on seed, chain, step and stream alone."""
        key = np.array([self.settings.seed, chain], dtype=np.uint64)
        counter = np.array([0, self.step_count, stream, 0], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))
