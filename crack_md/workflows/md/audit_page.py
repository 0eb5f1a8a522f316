"""An audit of energy conservation on one page."""

from collections.abc import Mapping
from typing import Any

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
        f"  {f'at {step:g} fs':12}{_drift(whole)}",
        f"  {f'at {step / 2:g} fs':12}{_drift(half)}",
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


def _drift(run: Mapping[str, Any]) -> str:
    slope = _number(run["drift_meV_per_atom_ps"], "+.5f")
    error = _number(run["drift_error_meV_per_atom_ps"], ".5f")
    return f"{slope} ± {error} meV/atom/ps"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
