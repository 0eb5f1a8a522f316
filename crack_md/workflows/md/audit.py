"""Energy conservation of a model: NVE at Δt and at Δt/2, and the force Jacobian.

The energy of a conservative model fluctuates with the square of the time step and does
not drift; the part of a drift that is not conservative stays when the step is halved.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.md.velocitydistribution import Stationary
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.errors import ConfigError, StructureError
from crack_md.files import claim_folder, package_versions, write_atomically, write_json
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.md.output import THERMO_FILE
from crack_md.workflows.md.run import MDResult, run_dynamics
from crack_md.workflows.md.settings import MDSettings
from crack_md.workflows.md.summary import FINISHED, fit_line, read_thermo

DISPLACEMENT_A = 0.002
"""On our students in float64: truncation below 1e-8 and round-off below 1e-11; a step
of 0.01 leaves 2e-6, which looks like an asymmetry."""
STENCIL = ((1, 2 / 3), (-1, -2 / 3), (2, -1 / 12), (-2, 1 / 12))


@dataclass(frozen=True)
class Asymmetry:
    """‖J − Jᵀ‖ / ‖J‖ (Frobenius) of the force Jacobian J = ∂F/∂x in a subspace."""

    value: float
    n_directions: int
    n_coordinates: int


def force_asymmetry(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    directions: int,
    rng: np.random.Generator,
    displacement_A: float = DISPLACEMENT_A,
) -> Asymmetry:
    """Return the asymmetry of QᵀJQ for random orthonormal Q; of J itself where small.

    J Q comes from central differences (four calls each direction). Constraints are not
    applied: this is a property of the model.
    """
    basis = _random_basis(3 * len(atoms), directions, rng)
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = calculator
    columns = [
        _derivative(moved, atoms.positions, direction, displacement_A)
        for direction in basis.T
    ]
    projected = basis.T @ np.stack(columns, axis=1)
    value = np.linalg.norm(projected - projected.T) / np.linalg.norm(projected)
    return Asymmetry(float(value), basis.shape[1], basis.shape[0])


def _random_basis(
    size: int, count: int, rng: np.random.Generator
) -> Float[np.ndarray, "coordinate direction"]:
    if count >= size:
        return np.eye(size)
    basis, _ = np.linalg.qr(rng.standard_normal((size, count)))
    return basis


def _derivative(
    moved: Atoms,
    origin: Float[np.ndarray, "atom 3"],
    direction: Float[np.ndarray, " coordinate"],
    step: float,
) -> Float[np.ndarray, " coordinate"]:
    """Return J·direction in eV/Å², to fourth order in the step."""
    total = np.zeros(origin.size)
    for factor, weight in STENCIL:
        moved.positions = origin + factor * step * direction.reshape(-1, 3)
        total += weight * moved.get_forces().ravel()
    return total / step


NVE_RUNS = ("nve", "nve_half_step")
LIMITS: Mapping[str, Any] = MappingProxyType(
    {
        "drift_meV_per_atom_ps": 0.05,
        "asymmetry": 1e-6,
        # at Δt over that at Δt/2: 4 for small steps of a conservative model
        "fluctuation_ratio": (3.4, 4.6),
    }
)


@dataclass(frozen=True)
class AuditSettings:
    """How long and how hard to look.

    Raises:
        ConfigError: a run too short to fit a line to.
    """

    temperature_K: float = 300.0
    timestep_fs: float = 1.0
    steps: int = 20_000
    equilibration_steps: int = 2000
    equilibration_friction_per_ps: float = 10.0
    directions: int = 60
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what tells nothing."""
        if self.steps < 20 * self.log_every:
            raise ConfigError(
                f"steps is {self.steps}; an audit needs {20 * self.log_every} or more "
                "to fit a drift"
            )

    def runs(self) -> dict[str, MDSettings]:
        """Return the runs of an audit: to equilibrate, at Δt, and at Δt/2."""
        nve = MDSettings(
            ensemble="nve",
            temperature_K=self.temperature_K,
            timestep_fs=self.timestep_fs,
            steps=self.steps,
            seed=self.seed,
            log_every=self.log_every,
            frames_every=1000,
            stop_at_broken_bonds=False,
        )
        return {
            "equilibration": replace(
                nve,
                ensemble="langevin",
                steps=self.equilibration_steps,
                friction_per_ps=self.equilibration_friction_per_ps,
            ),
            "nve": nve,
            # as many steps: half the time, compared with the same half at Δt
            "nve_half_step": replace(nve, timestep_fs=self.timestep_fs / 2),
        }


def run_audit(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    settings: AuditSettings,
    folder: Path,
    precise: BaseCalculator | None = None,
    provenance: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Return how well energy is conserved; audit.json and audit.txt say the same.

    The runs lie in folders of their own, and continue where they were stopped.

    Args:
        atoms: where equilibration starts.
        calculator: what the runs use.
        settings: temperature, time step, length.
        folder: for all files.
        precise: the same model in float64, for the Jacobian.
        provenance: what else decides the numbers, such as the model.
        report: called after every step, about the name of the run.

    Raises:
        DataError: the folder cannot be written or holds another audit.
        StructureError: equilibration leaves physics.
    """
    with claim_folder(folder):
        return _audit(atoms, calculator, settings, folder, precise, provenance, report)


def _audit(
    atoms: Atoms,
    calculator: BaseCalculator,
    settings: AuditSettings,
    folder: Path,
    precise: BaseCalculator | None,
    provenance: Mapping[str, Any] | None,
    report: Report | None,
) -> dict[str, Any]:
    given = dict(provenance or {})
    runs = _run_all(atoms, calculator, settings, folder, given, report)
    asymmetry = force_asymmetry(
        runs["equilibration"].atoms,
        precise or calculator,
        directions=settings.directions,
        rng=np.random.default_rng(settings.seed),
    )
    thermo = [read_thermo(folder / name / THERMO_FILE) for name in NVE_RUNS]
    measured = {
        **_conservation(*thermo, n_atoms=len(atoms)),
        "asymmetry": asdict(asymmetry),
    }
    audit = {
        "formula": atoms.get_chemical_formula(mode="metal"),
        "n_atoms": len(atoms),
        "settings": asdict(settings),
        **given,
        "stopped": {
            name: f"step {run.step}: {run.status}: {run.reason}"
            for name, run in runs.items()
            if run.status != FINISHED
        },
        **measured,
        "limits": dict(LIMITS),
        "verdict": _verdict(measured),
        "versions": package_versions(),
    }
    audit["passes"] = all(audit["verdict"].values()) and not audit["stopped"]
    write_json(folder / "audit.json", audit)
    write_atomically(folder / "audit.txt", audit_page(audit).encode())
    return audit


def _run_all(
    atoms: Atoms,
    calculator: BaseCalculator,
    settings: AuditSettings,
    folder: Path,
    provenance: Mapping[str, Any],
    report: Report | None,
) -> dict[str, MDResult]:
    """Return equilibration and both NVE runs, which start where it ended."""
    results: dict[str, MDResult] = {}
    start = atoms
    for name, run in settings.runs().items():
        tell = None if report is None else partial(_report_run, report, name)
        results[name] = run_dynamics(
            start,
            calculator,
            settings=run,
            folder=folder / name,
            provenance=provenance,
            report=tell,
        )
        if name == "equilibration":
            _require_finished(results[name])
            start = results[name].atoms.copy()
            if not start.constraints:
                Stationary(start)  # a drifting whole holds no heat
    return results


def _report_run(report: Report, name: str, event: ProgressEvent) -> None:
    report(event._replace(what=name))


def _require_finished(equilibration: MDResult) -> None:
    if equilibration.status != FINISHED:
        raise StructureError(
            f"equilibration ended early, at step {equilibration.step}: "
            f"{equilibration.status}: {equilibration.reason}; there is no start to "
            "measure from"
        )


def _conservation(
    whole: Mapping[str, NDArray[np.float64]],
    half: Mapping[str, NDArray[np.float64]],
    *,
    n_atoms: int,
) -> dict[str, Any]:
    """Return drift and fluctuation of the energy at both time steps."""
    same_time = whole["time_fs"] <= half["time_fs"][-1]
    window = {name: values[same_time] for name, values in whole.items()}
    coarse, fine = _fluctuation(window, n_atoms), _fluctuation(half, n_atoms)
    return {
        "nve": _drift(whole, n_atoms),
        "nve_half_step": _drift(half, n_atoms),
        "fluctuation_at_step_meV_per_atom": coarse,
        "fluctuation_at_half_step_meV_per_atom": fine,
        "fluctuation_ratio": coarse / fine if coarse and fine else None,
    }


def _drift(
    thermo: Mapping[str, NDArray[np.float64]], n_atoms: int
) -> dict[str, float | None]:
    time_ps = thermo["time_fs"] / 1000.0
    line = fit_line(time_ps, thermo["total_energy_eV"] * 1000.0 / n_atoms)
    duration = float(time_ps[-1] - time_ps[0])
    spread = float(np.std(thermo["kinetic_energy_eV"]) * 1000.0 / n_atoms)
    numbers = {
        "duration_ps": duration,
        "mean_temperature_K": float(thermo["temperature_K"].mean()),
        "drift_meV_per_atom_ps": line.slope,
        "drift_error_meV_per_atom_ps": line.error,
        "drift_over_kinetic_spread": abs(line.slope) * duration / spread,
    }
    return {name: v if np.isfinite(v) else None for name, v in numbers.items()}


def _fluctuation(
    thermo: Mapping[str, NDArray[np.float64]], n_atoms: int
) -> float | None:
    """Return the spread of the energy about its drift in meV/atom, if it can be had."""
    time, energy = thermo["time_fs"], thermo["total_energy_eV"]
    if len(time) < 3:
        return None
    line = np.polyfit(time - time.mean(), energy - energy.mean(), 1)
    rest = energy - energy.mean() - np.polyval(line, time - time.mean())
    return float(np.std(rest) * 1000.0 / n_atoms)


def _verdict(measured: Mapping[str, Any]) -> dict[str, bool]:
    drift = measured["nve"]["drift_meV_per_atom_ps"]
    ratio = measured["fluctuation_ratio"]
    low, high = LIMITS["fluctuation_ratio"]
    return {
        "drift": drift is not None and abs(drift) <= LIMITS["drift_meV_per_atom_ps"],
        "step_scaling": ratio is not None and low <= ratio <= high,
        "asymmetry": measured["asymmetry"]["value"] <= LIMITS["asymmetry"],
    }


WORDS = {True: "yes", False: "NO"}


def audit_page(audit: Mapping[str, Any]) -> str:
    """Return the numbers of an audit with what they mean, as plain text."""
    settings, verdict = audit["settings"], audit["verdict"]
    whole, half = audit["nve"], audit["nve_half_step"]
    asymmetry, limits = audit["asymmetry"], audit["limits"]
    step = settings["timestep_fs"]
    lines = [
        f"Energy conservation of {audit.get('model', 'the model')} on "
        f"{audit['formula']} ({audit['n_atoms']} atoms)",
        "",
        f"  velocity Verlet, {whole['duration_ps']:g} ps at {step:g} fs and "
        f"{half['duration_ps']:g} ps at {step / 2:g} fs from one start at "
        f"{settings['temperature_K']:g} K",
        f"  mean temperature {_number(whole['mean_temperature_K'], '.0f')} K",
        "",
        f"Drift within {limits['drift_meV_per_atom_ps']:g} meV/atom/ps: "
        f"{WORDS[verdict['drift']]}",
        f"  {f'at {step:g} fs':12}{_drift_text(whole)}",
        f"  {f'at {step / 2:g} fs':12}{_drift_text(half)}",
        "  drift over the run / spread of the kinetic energy: "
        f"{_number(whole['drift_over_kinetic_spread'], '.3g')} (below 1 is usable)",
        "",
        f"Fluctuation grows as step²: {WORDS[verdict['step_scaling']]}",
        f"  {_number(audit['fluctuation_at_step_meV_per_atom'], '.4g')} and "
        f"{_number(audit['fluctuation_at_half_step_meV_per_atom'], '.4g')} meV/atom: "
        f"ratio {_number(audit['fluctuation_ratio'], '.2f')}",
        "  (4 is the integrator's own error; less: noise, or forces that are no "
        "gradient)",
        "",
        f"Force Jacobian symmetric to {limits['asymmetry']:g}: "
        f"{WORDS[verdict['asymmetry']]}",
        f"  |J - J^T| / |J| = {asymmetry['value']:.2e} in "
        f"{asymmetry['n_directions']} of {asymmetry['n_coordinates']} directions "
        f"({audit.get('jacobian_precision', 'precision of the model')})",
        "",
    ]
    lines += [f"{name} ended early, {why}" for name, why in audit["stopped"].items()]
    end = "This model conserves energy here." if audit["passes"] else "Not passed."
    return "\n".join([*lines, end, ""])


def _drift_text(run: Mapping[str, Any]) -> str:
    slope = _number(run["drift_meV_per_atom_ps"], "+.5f")
    error = _number(run["drift_error_meV_per_atom_ps"], ".5f")
    return f"{slope} ± {error} meV/atom/ps"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
