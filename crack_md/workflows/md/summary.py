"""summary.json and final.extxyz of a run: means, energy drift, equilibration."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.errors import DataError
from crack_md.files import atomic_path, package_versions, write_json
from crack_md.workflows.md.output import THERMO_FILE
from crack_md.workflows.md.settings import MDSettings

RELAXATION_TIMES = 5.0
"""A run shorter than this still knows its start: e⁻⁵ is 0.7 %."""
N_ERRORS = 3.0
SAME_TEMPERATURE = 0.02
"""Of the target; smaller differences come from the time step as well."""
MIN_VECTOR_A = 10.0
"""About twice the cutoff of most models: in smaller cells atoms feel images of each
other that move with them, and long waves are missing."""


class Mean(NamedTuple):
    """The mean of a series."""

    value: float
    error: float | None
    """Standard error; None where there are too few values to tell."""


def relaxation_times_fs(settings: MDSettings) -> dict[str, float]:
    """Return how long thermostat and barostat take to forget, where there are any."""
    times = {}
    if settings.ensemble != "nve" and settings.friction_per_ps > 0:
        times["thermostat"] = 1000.0 / settings.friction_per_ps
    if settings.ensemble == "npt":
        times["barostat"] = settings.pressure_time_fs
    return times


def reasons_against_equilibrium(
    temperature_K: Mean, *, time_fs: float, settings: MDSettings
) -> list[str]:
    """Return why a run cannot count as equilibrated; empty where nothing is against it.

    Args:
        temperature_K: of the second half.
        time_fs: of the whole run.
        settings: of the run.
    """
    times = relaxation_times_fs(settings)
    reasons = [
        f"its {time_fs / 1000:g} ps are shorter than five relaxation times of the "
        f"{name} ({RELAXATION_TIMES:g} × {period / 1000:g} ps)"
        for name, period in times.items()
        if time_fs < RELAXATION_TIMES * period * (1 - 1e-9)
    ]
    target = settings.temperature_K
    if "thermostat" not in times or temperature_K.error is None:
        return reasons
    off = abs(temperature_K.value - target)
    if off > max(N_ERRORS * temperature_K.error, SAME_TEMPERATURE * target):
        reasons.append(
            f"its second half is at {temperature_K.value:.0f} ± "
            f"{temperature_K.error:.0f} K, and the target is {target:g} K"
        )
    return reasons


def note_of_tiny_cell(atoms: Atoms) -> str:
    """Return what to say where atoms are near their own images; empty where not."""
    if not atoms.pbc.any():
        return ""
    reduced, _ = minkowski_reduce(atoms.cell.complete(), atoms.pbc)
    shortest = float(np.linalg.norm(reduced[atoms.pbc], axis=1).min())
    if shortest >= MIN_VECTOR_A:
        return ""
    return (
        f"the cell repeats after {shortest:.1f} Å, less than {MIN_VECTOR_A:g} Å (about "
        "twice the cutoff of most models): atoms move together with their images, and "
        "fluctuations are not those of a large crystal; repeat the cell"
    )


SUMMARY_FILE = "summary.json"
FINAL_FILE = "final.extxyz"
FINISHED = "finished"


Series = Float[np.ndarray, " time"]


class Line(NamedTuple):
    """A fitted slope and its standard error."""

    slope: float
    error: float


def fit_line(x: Series, y: Series) -> Line:
    """Return the least-squares slope of y over x, its error for correlated residuals.

    The error of independent residuals is widened by √g, with g their statistical
    inefficiency: energies a femtosecond apart are no independent measurements.
    """
    if len(x) < 3:
        return Line(float("nan"), float("nan"))
    arm = x - x.mean()
    slope = float(arm @ y / (arm @ arm))
    residual = y - y.mean() - slope * arm
    variance = float(residual @ residual) / (len(x) - 2)
    error = np.sqrt(variance * statistical_inefficiency(residual) / (arm @ arm))
    return Line(slope, float(error))


def mean_of_correlated(series: Series) -> Mean:
    """Return the mean and σ √(g/n), with g the statistical inefficiency."""
    n = len(series)
    if n < 3:
        return Mean(float(series.mean()), None)
    g = min(statistical_inefficiency(series), float(n))
    return Mean(float(series.mean()), float(series.std(ddof=1) * np.sqrt(g / n)))


def statistical_inefficiency(series: Series) -> float:
    """Return g = 1 + 2 Σ_t (1 − t/n) ρ(t): n/g values of the series are independent.

    The sum ends where the autocorrelation ρ first falls below zero.
    """
    n = len(series)
    centered = series - series.mean()
    # zero padding keeps the end of the series from meeting its start
    spectrum = np.abs(np.fft.rfft(centered, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[:n]
    if not correlation[0] > 0:
        return 1.0
    rho = correlation / correlation[0]  # holds the factor 1 − t/n already
    ends = np.flatnonzero(rho <= 0)
    last = int(ends[0]) if len(ends) else n
    return float(max(1.0, 1.0 + 2.0 * rho[1:last].sum()))


def write_summary(
    folder: Path,
    atoms: Atoms,
    *,
    settings: MDSettings,
    conditions: Mapping[str, Any],
    end: Mapping[str, Any],
    cost: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write how a run ended and its means, and return them.

    Args:
        folder: of the run, with thermo.csv.
        atoms: the last good structure.
        settings: of the run.
        conditions: what decided the run.
        end: status, reason, step and how far from the model's domain it came.
        cost: of this call.
        notes: what else should be known about the run.

    Raises:
        DataError: a file cannot be written.
    """
    thermo = read_thermo(folder / THERMO_FILE)
    drift = energy_drift(thermo, len(atoms))
    means = _means(thermo)
    time_fs = end["step"] * settings.timestep_fs
    against = reasons_against_equilibrium(
        means["temperature_K"], time_fs=time_fs, settings=settings
    )
    has_target = bool(relaxation_times_fs(settings))
    summary = {
        **end,
        "time_fs": time_fs,
        "last_good_step": int(atoms.info["step"]),
        "equilibrated": not against if has_target else None,
        "notes": [*notes, *(f"not equilibrated: {reason}" for reason in against)],
        "second_half": {name: mean.value for name, mean in means.items()},
        "second_half_error": {name: mean.error for name, mean in means.items()},
        "conserved_energy_drift_meV_per_atom_ps": _number(drift.slope),
        "conserved_energy_drift_error_meV_per_atom_ps": _number(drift.error),
        "settings": dict(conditions),
        "cost": dict(cost),
        "versions": package_versions(),
    }
    with atomic_path(folder / FINAL_FILE) as temporary:
        ase.io.write(temporary, atoms, format="extxyz")
    write_json(folder / SUMMARY_FILE, summary)
    return summary


def read_thermo(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the columns of thermo.csv; empty cells are NaN.

    Raises:
        DataError: it is gone, or is no table of numbers.
    """
    try:
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in (rows[0] if rows else ())
        }
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"cannot read '{path}': {getattr(error, 'strerror', None) or error}; it "
            "was removed or changed while the run went on: remove the folder to start "
            "again"
        ) from error


def energy_drift(thermo: Mapping[str, NDArray[np.float64]], n_atoms: int) -> Line:
    """Return the slope of the conserved energy in meV/atom/ps, and its error."""
    time_ps = thermo["time_fs"] / 1000.0
    return fit_line(time_ps, thermo["conserved_energy_eV"] * 1000.0 / n_atoms)


def _means(thermo: Mapping[str, Series]) -> dict[str, Mean]:
    """Return the means of the second half, by column."""
    half = len(thermo["step"]) // 2
    return {
        name: mean_of_correlated(values[half:])
        for name, values in thermo.items()
        if name not in ("step", "time_fs", "conserved_energy_eV")
    }


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
