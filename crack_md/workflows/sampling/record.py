"""A sampling check as plain numbers for sampling.json, units in the names."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np
from ase import Atoms, units
from jaxtyping import Float

from crack_md.files import package_versions
from crack_md.workflows.sampling.analysis import Convergence
from crack_md.workflows.sampling.chains import SampledChains
from crack_md.workflows.sampling.check import (
    BOND_TOLERANCE,
    KINETIC_TOLERANCE,
    MAX_R_HAT,
    MAX_RATIO,
    MAX_SPURIOUS,
    MIN_EFFECTIVE_SIZE,
    MIN_SURVIVAL,
    VIRIAL_TOLERANCE,
    SamplingCheck,
)
from crack_md.workflows.sampling.metrics import Metric
from crack_md.workflows.sampling.reference import ReferenceFrames
from crack_md.workflows.sampling.temperature import Temperature, count_vibrations

FORMAT_VERSION = 1
MAX_BLOW_UPS = 50
"""Listed one by one; beyond that they are counted."""

LIMITS = {
    "metric_over_noise_floor": MAX_RATIO,
    "survival": MIN_SURVIVAL,
    "spurious_fraction": MAX_SPURIOUS,
    "r_hat": MAX_R_HAT,
    "effective_size": MIN_EFFECTIVE_SIZE,
    "virial_temperature_off": VIRIAL_TOLERANCE,
    "bond_temperature_off": BOND_TOLERANCE,
    "kinetic_temperature_off": KINETIC_TOLERANCE,
}


def summarize(check: SamplingCheck, **provenance: Any) -> dict[str, Any]:
    """Return a check as numbers, strings, lists and None, ready for JSON."""
    analysis, judged = check.analysis, check.verdict
    record = {
        "format_version": FORMAT_VERSION,
        "verdict": judged.status,
        "failures": list(judged.failures),
        "doubts": list(judged.doubts),
        "reference": _reference(check),
        "model": _model(check),
        "energies": energy_columns(check),
        "metrics": [metric_row(m) for c in analysis.comparisons for m in c.metrics],
        "spurious": {
            "fraction": analysis.spurious_fraction,
            "error": analysis.spurious_error,
            "n_frames": analysis.n_frames,
            "by_reason": analysis.n_spurious,
        },
        "convergence": _convergence(analysis.sample_convergence),
        "chains": None if check.chains is None else _chains(check, check.chains),
        "limits": LIMITS,
        **provenance,
        "versions": package_versions(),
    }
    plain: dict[str, Any] = _plain(record)
    return plain


def energy_columns(check: SamplingCheck) -> list[dict[str, Any]]:
    """Return mean and spread of potential energies in eV, above the reference's lowest.

    The model on its own frames, the model on the reference, and the reference by its
    own labels; for scale, the spread √(n/2) kT of n harmonic oscillators.
    """
    reference, on_reference = check.reference, check.on_reference
    by_model = None if on_reference is None else on_reference.energies
    known = by_model if reference.energies is None else reference.energies
    sample = "model on its chains" if check.chains is not None else "second half"
    columns = (
        (sample, check.sample_energies),
        ("model on the reference", by_model),
        ("reference", reference.energies),
    )
    zero = float(known.min()) if known is not None else 0.0
    rows = [
        {"what": what, **_summarize_energies(energies - zero)}
        for what, energies in columns
        if energies is not None and len(energies)
    ]
    half_n = count_vibrations(reference.positions) / 2
    spread = half_n**0.5 * units.kB * reference.known_temperature
    return [*rows, {"what": "harmonic oscillators", "std_eV": spread}]


def metric_row(metric: Metric) -> dict[str, Any]:
    """Return one distance with its noise floors."""
    return {
        "observable": metric.observable,
        "metric": {"W1": "wasserstein_1", "JS": "jensen_shannon", "F": "rmse_F"}[
            metric.quantity
        ],
        "unit": metric.unit,
        "value": metric.value,
        "noise_floor": metric.floor,
        "noise_of_sample": metric.sample_floor,
        "ratio": metric.ratio,
    }


def _reference(check: SamplingCheck) -> dict[str, Any]:
    reference, thermometers = check.reference, check.thermometers
    return {
        "path": reference.where,
        "sha256": reference.sha256,
        "formula": formula_of(reference),
        "n_frames": len(reference),
        "n_duplicates_left_out": reference.n_duplicates,
        "labels": reference.labels,
        "temperature_K": reference.temperature_K,
        "temperature_source": reference.temperature_source,
        **_temperature("virial_temperature", thermometers.virial),
        **_temperature("bond_temperature", thermometers.bonds),
        "mirror_images_averaged": check.molecule.is_achiral,
        "bonds": [list(bond) for bond in check.molecule.graph.bonds],
        "torsions": [
            {"name": torsion.name, "fold": torsion.fold, "members": len(torsion.atoms)}
            for torsion in check.molecule.torsions
        ],
        "convergence": _convergence(check.analysis.reference_convergence),
    }


def formula_of(reference: ReferenceFrames) -> str:
    """Return the formula of the molecule, C2H6O."""
    return str(Atoms(reference.numbers).get_chemical_formula(mode="hill"))


def _model(check: SamplingCheck) -> dict[str, Any] | None:
    if check.model is None or check.on_reference is None or check.dynamics is None:
        return None
    found = check.on_reference
    return {
        "name": check.model.name,
        "sha256": check.model.sha256,
        "forces": check.dynamics.forces_kind,
        "n_frames_evaluated": len(found.energies),
        "energy_offset_eV": found.offset,
        "energy_mae_eV": found.energy_mae,
        "force_mae_eV_per_A": found.force_mae,
        **_temperature("virial_temperature", found.virial),
    }


def _chains(check: SamplingCheck, chains: SampledChains) -> dict[str, Any]:
    assert check.dynamics is not None, "chains come with what became of them"
    events = chains.blow_ups
    return {
        **asdict(chains.settings),
        "discard": chains.settings.n_discarded,
        "survival": check.dynamics.survival,
        **_temperature("kinetic_temperature", check.dynamics.kinetic),
        "n_blow_ups": len(events),
        "blow_ups": [
            {"chain": event.replica, "step": event.step, "reason": event.reason}
            for event in events[:MAX_BLOW_UPS]
        ],
    }


def _convergence(found: Iterable[Convergence]) -> list[dict[str, Any]]:
    return [asdict(one) for one in found]


def _summarize_energies(
    energies: Float[np.ndarray, " frame"],
) -> dict[str, float]:
    return {
        "mean_eV": float(energies.mean()),
        "std_eV": float(energies.std()),
        "min_eV": float(energies.min()),
        "max_eV": float(energies.max()),
        "n_frames": len(energies),
    }


def _temperature(name: str, found: Temperature | None) -> dict[str, float | None]:
    return {
        f"{name}_K": None if found is None else found.value,
        f"{name}_error_K": None if found is None else found.error,
    }


def _plain(value: Any) -> Any:
    """Return a value without NumPy's types, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
