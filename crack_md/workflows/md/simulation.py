"""The loop of a molecular dynamics run: steps, stop rules, restart files.

A run passes through its restart file: at every ``restart_every``-th step its state is
written, and then put back as a later call would read it, with a calculator that has
forgotten its neighbor lists. So a run that was stopped anywhere continues from its last
restart file to the same bits, and 2 × 500 steps are 1000 steps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator

from crack_md.errors import DataError
from crack_md.files import read_json
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.md.integrators import (
    Integrator,
    build_dynamics,
    degrees_of_freedom,
    draw_velocities,
    temperature,
)
from crack_md.workflows.md.output import RunFiles, freeze_frame
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.md.state import State, read_state, write_state
from crack_md.workflows.md.stops import StopReason, StopRules
from crack_md.workflows.md.summary import FINISHED, SUMMARY_FILE
from crack_md.workflows.model_info import domain_distance

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
            self.dynamics.step()
            self.step += 1
            self._watch_domain()
            stop = self.rules.check_state(self.atoms, self._temperature())
            if stop is None and self.step % self.settings.log_every == 0:
                stop = self.rules.check_bonds(self.atoms)
        except Exception as error:  # calculators raise many kinds; the files stay good
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return StopReason("calculator_failed", text)
        return stop

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
            self.atoms, self.settings, self.rng, self.dof, memory
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
