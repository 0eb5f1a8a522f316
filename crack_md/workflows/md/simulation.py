"""The loop of a molecular dynamics run: steps, stop rules, restart files.

A run passes through its restart file: at every ``restart_every``-th step its state is
written, and then put back as a later call would read it, with a calculator that has
forgotten its neighbor lists. So a run that was stopped anywhere continues from its last
restart file to the same bits, and 2 × 500 steps are 1000 steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.special import chdtri

from crack_md.calculators.replicas.dynamics import STRETCH
from crack_md.errors import DataError
from crack_md.files import read_json
from crack_md.progress import ProgressEvent, Report
from crack_md.structures import NONMETALS
from crack_md.workflows.md.integrators import (
    Integrator,
    build_dynamics,
    degrees_of_freedom,
    draw_velocities,
    temperature,
)
from crack_md.workflows.md.output import (
    RunFiles,
    State,
    freeze_frame,
    read_state,
    write_state,
)
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.md.summary import FINISHED, SUMMARY_FILE
from crack_md.workflows.model_info import domain_distance

HOT_FACTOR = 3.0
HOT_CHANCE = 1e-12
"""A few atoms reach three times their temperature by chance, but not this seldom."""
BOND_SCALE = 1.25
BROKEN_SCALE = 1.75
"""In sums of covalent radii. Bonds of metals come and go; those of nonmetals stay."""
ALONE_SCALE = 2.5


class StopReason(NamedTuple):
    """Why a run ended before its time."""

    status: str
    """``not_finite``, ``too_hot``, ``broken_bonds`` or ``calculator_failed``."""
    reason: str


@dataclass(frozen=True, eq=False)
class StopRules:
    """What is watched, fixed by the structure at the start."""

    max_temperature_K: float
    bonds: NDArray[np.int_]
    """(bond, 2) pairs of nonmetal atoms that are bonded at the start."""
    bonded: NDArray[np.int_]
    """Atoms that have a neighbor at the start."""
    watches_bonds: bool

    @classmethod
    def for_run(
        cls, atoms: Atoms, *, temperature_K: float, dof: int, watches_bonds: bool
    ) -> "StopRules":
        """Return the rules for a run that starts with these atoms."""
        chance = float(chdtri(dof, HOT_CHANCE)) / dof
        first, second = _pairs(atoms, BOND_SCALE)
        covalent = np.isin(atoms.numbers, sorted(NONMETALS))
        stays = covalent[first] & covalent[second] & (first < second)
        near, _ = _pairs(atoms, ALONE_SCALE)
        return cls(
            max(HOT_FACTOR, chance) * temperature_K,
            np.stack([first, second], axis=1)[stays],
            np.unique(near),
            watches_bonds,
        )

    def check_state(self, atoms: Atoms, temperature_K: float) -> StopReason | None:
        """Return why to stop, from what every step has at hand."""
        energy, forces = atoms.get_potential_energy(), atoms.get_forces(md=True)
        positions = np.isfinite(atoms.positions).all()
        if not (np.isfinite(energy) and np.isfinite(forces).all() and positions):
            return StopReason(
                "not_finite", "an energy, force or position is not finite"
            )
        if temperature_K > self.max_temperature_K:
            return StopReason(
                "too_hot",
                f"the temperature is {temperature_K:.0f} K, above "
                f"{self.max_temperature_K:.0f} K; a shorter time step may help, or "
                "the structure is outside what the model can describe",
            )
        return None

    def check_bonds(self, atoms: Atoms) -> StopReason | None:
        """Return why to stop, from the distances between atoms."""
        if not self.watches_bonds:
            return None
        for i, j in self.bonds:
            length = atoms.get_distance(int(i), int(j), mic=True)
            limit = BROKEN_SCALE * covalent_radii[atoms.numbers[[i, j]]].sum()
            if length > limit:
                names = " and ".join(f"{atoms.symbols[k]} (atom {k})" for k in (i, j))
                return StopReason(
                    "broken_bonds",
                    f"the bond of {names} is {length:.2f} Å long (limit {limit:.2f} Å)",
                )
        near, _ = _pairs(atoms, ALONE_SCALE)
        gone = np.setdiff1d(self.bonded, near)
        if len(gone):
            names = ", ".join(f"{atoms.symbols[k]} (atom {k})" for k in gone)
            return StopReason("broken_bonds", f"{names} left all other atoms")
        return None


def _pairs(atoms: Atoms, scale: float) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the pairs closer than ``scale`` times the sum of covalent radii."""
    cutoffs = [scale * covalent_radii[number] for number in atoms.numbers]
    first, second = neighbor_list("ij", atoms, cutoffs)
    return first, second


RESTART_FILE = "restart.npz"


class Simulation:
    """Atoms on their way, and the files they leave."""

    dynamics: Integrator

    def __init__(
        self,
        atoms: Atoms,
        calculator: BaseCalculator,
        settings: MDSettings,
        folder: Path,
    ) -> None:
        self.atoms = atoms
        self.calculator = calculator
        self.settings = settings
        self.folder = folder
        self.step = 0
        self.rng = np.random.default_rng(settings.seed)
        self.dof = degrees_of_freedom(atoms, settings.ensemble)
        self.rules = StopRules.for_run(
            atoms,
            temperature_K=max(settings.temperature_K, settings.start_temperature),
            dof=self.dof,
            watches_bonds=settings.stop_at_broken_bonds,
        )
        self.files = RunFiles(
            folder, settings.format, with_pressure=settings.ensemble == "npt"
        )
        self.last_good = atoms
        self.domain_distance: float | None = None
        atoms.calc = calculator

    def begin_or_resume(self) -> None:
        """Go to the last restart file, or to step 0 where there is none."""
        path = self.folder / RESTART_FILE
        state = read_state(path, n_atoms=len(self.atoms))
        if state is not None:
            _require_steps_ahead(self.folder, state.step, self.settings.steps)
            self.files.cut(state.marks)
            self._restore(state)
            return
        self.files.cut({})
        if not self.atoms.get_momenta().any():
            draw_velocities(
                self.atoms,
                temperature_K=self.settings.start_temperature,
                ensemble=self.settings.ensemble,
                rng=self.rng,
            )
        self._build_dynamics({})
        self._log()
        self._watch_domain()
        self.files.frames.append(self._frame())
        self._pass_through_restart_file()

    def advance(self, report: Report | None) -> StopReason | None:
        """Go to the last step; return what stopped the run before, if anything."""
        self.last_good = self._frame()
        settings = self.settings
        while self.step < settings.steps:
            stop = self._try_step()
            if stop is not None:
                return stop
            if self.step % settings.log_every == 0:
                self._log()
            if self.step % settings.frames_every == 0:
                self.last_good = self._frame()
                self.files.frames.append(self.last_good)
            if self.step % settings.restart_every == 0:
                self._require_files()
                self._pass_through_restart_file()
            if report is not None:
                temperature_K = f"{self._temperature():.0f} K"
                report(ProgressEvent(self.step, settings.steps, temperature_K))
        self.last_good = self._frame()
        self._require_files()
        return None

    def _require_files(self) -> None:
        """Raise DataError where files are gone: such a run has not finished."""
        self.files.marks()
        if not (self.folder / RESTART_FILE).exists():
            raise DataError(
                f"'{self.folder / RESTART_FILE}' was removed while the run went on; "
                "give another --out to start again"
            )

    def _try_step(self) -> StopReason | None:
        try:
            self.step += self.dynamics.advance(self._steps_ahead())
            self._watch_domain()
            stop = self.rules.check_state(self.atoms, self._temperature())
            if stop is None and self.step % self.settings.log_every == 0:
                stop = self.rules.check_bonds(self.atoms)
        except Exception as error:  # calculators raise many kinds; the files stay good
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return StopReason("calculator_failed", text)
        return stop

    def _steps_ahead(self) -> int:
        """Return how many steps may be taken before something is to be done."""
        settings = self.settings
        events = (settings.log_every, settings.frames_every, settings.restart_every)
        ahead = (every - self.step % every for every in events)
        return min(STRETCH, settings.steps - self.step, *ahead)

    def _watch_domain(self) -> None:
        """Remember how far from its training data the model has been asked."""
        found = domain_distance(self.calculator)
        if found is not None:
            self.domain_distance = max(found, self.domain_distance or 0.0)

    def _temperature(self) -> float:
        return temperature(float(self.atoms.get_kinetic_energy()), self.dof)

    def _log(self) -> None:
        potential = float(self.atoms.get_potential_energy())
        kinetic = float(self.atoms.get_kinetic_energy())
        conserved = potential + kinetic - self.dynamics.heat
        row: dict[str, Any] = {
            "step": self.step,
            "time_fs": self.step * self.settings.timestep_fs,
            "temperature_K": self._temperature(),
            "potential_energy_eV": potential,
            "kinetic_energy_eV": kinetic,
            "total_energy_eV": potential + kinetic,
            "conserved_energy_eV": conserved if np.isfinite(conserved) else "",
        }
        if self.settings.ensemble == "npt":
            stress = self.atoms.get_stress(include_ideal_gas=True)
            row["volume_A3"] = float(self.atoms.get_volume())
            row["pressure_GPa"] = float(-stress[:3].mean() / units.GPa)
        self.files.thermo.append(row)

    def _frame(self) -> Atoms:
        time_fs = self.step * self.settings.timestep_fs
        return freeze_frame(self.atoms, step=self.step, time_fs=time_fs)

    def _pass_through_restart_file(self) -> None:
        state = State(
            self.step,
            self.atoms.positions.copy(),
            self.atoms.get_momenta(),
            self.atoms.cell.array.copy(),
            dict(self.rng.bit_generator.state),
            self.dynamics.memory(),
            self.files.marks(),
            self.domain_distance,
        )
        write_state(self.folder / RESTART_FILE, state)
        self._restore(state)

    def _restore(self, state: State) -> None:
        self.step = state.step
        self.domain_distance = state.domain_distance
        state.apply(self.atoms, self.rng)
        reset = getattr(self.calculator, "reset", None)
        if reset is not None:
            reset()
        self._build_dynamics(state.memory)

    def _build_dynamics(self, memory: Mapping[str, float]) -> None:
        self.dynamics = build_dynamics(
            self.atoms,
            self.settings,
            self.rng,
            self.dof,
            memory,
            max_temperature_K=self.rules.max_temperature_K,
        )


def _require_steps_ahead(folder: Path, done: int, wanted: int) -> None:
    """Refuse to cut a run back to fewer steps than it has."""
    summary = folder / SUMMARY_FILE
    if summary.exists() and read_json(summary)["status"] == FINISHED:
        done = max(done, read_json(summary)["step"])
    if wanted < done:
        raise DataError(
            f"'{folder}' has {done} steps already, more than the {wanted} asked for; "
            "--steps is the length of the whole run"
        )
