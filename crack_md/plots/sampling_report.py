"""The page of a sampling check: verdict, metrics beside their floors, figures."""

from pathlib import Path
from typing import Any

from crack_md.plots.sampling import (
    draw_chains,
    draw_distances,
    draw_energies,
    draw_ratios,
    draw_torsions,
)
from crack_md.plots.style import PageSection, style, write_page
from crack_md.workflows.sampling.check import SamplingCheck

METRICS = {
    "wasserstein_1": "Wasserstein",
    "jensen_shannon": "Jensen–Shannon",
    "rmse_F": "RMSE of F",
}


def write_sampling_report(
    folder: Path, check: SamplingCheck, record: dict[str, Any], *, command: str
) -> Path:
    """Write the figures and ``report.html``; return the page.

    Args:
        folder: of the results.
        check: what was found.
        record: the same as plain numbers.
        command: that made it.

    Raises:
        DataError: the folder cannot be written.
    """
    with style():
        sections = _sections(check, record, command)
        return write_page(
            folder,
            sections,
            title=_title(record),
            subtitle=_subtitle(record),
            option="--out",
        )


def _title(record: dict[str, Any]) -> str:
    formula = record["reference"]["formula"]
    if record["model"] is None:
        return f"{record['verdict']}: {formula}, one half against the other"
    return f"{record['verdict']}: {formula} by {record['model']['name']}"


def _subtitle(record: dict[str, Any]) -> str:
    reference = record["reference"]
    return (
        f"{reference['n_frames']:,} frames at {reference['temperature_K']:.1f} K "
        f"({reference['temperature_source'] or 'as given'}); virial temperature "
        f"{_measure(reference, 'virial_temperature')}, bonds "
        f"{_measure(reference, 'bond_temperature')}"
    )


def _sections(
    check: SamplingCheck, record: dict[str, Any], command: str
) -> tuple[PageSection, ...]:
    found = [_verdict(record)]
    if check.analysis.comparisons:
        found += _distributions(check, record)
    if check.chains is not None:
        found.append(_chains(check, record))
    return (*found, _convergence(record), _provenance(record, command))


def _distributions(check: SamplingCheck, record: dict[str, Any]) -> list[PageSection]:
    torsions = draw_torsions(check)
    found = [
        PageSection(
            "Ratios",
            "Every distance between sample and reference, divided by what two halves "
            "of the reference are apart. PASS takes all of them at 2 or less.",
            figure=draw_ratios(check),
        ),
        _energies(check, record),
        PageSection(
            "Distances",
            "Probability densities of distances between atoms, each pair counted once.",
            figure=draw_distances(check),
        ),
    ]
    if torsions is not None:
        found.append(PageSection("Torsions", _about_torsions(record), figure=torsions))
    return [*found, _metrics(record)]


def _verdict(record: dict[str, Any]) -> PageSection:
    reasons = [(line, "failure") for line in record["failures"]]
    reasons += [(line, "doubt") for line in record["doubts"]]
    text = {
        "PASS": "The sample is not further from the reference than the reference is "
        "from itself.",
        "FAIL": "The sample is not distributed like the reference.",
        "INCONCLUSIVE": "This check cannot tell whether the sample is distributed like "
        "the reference.",
    }[record["verdict"]]
    return PageSection(
        "Verdict", text, ("reason", "") if reasons else (), tuple(reasons)
    )


def _energies(check: SamplingCheck, record: dict[str, Any]) -> PageSection:
    columns = ("mean_eV", "std_eV", "min_eV", "max_eV", "n_frames")
    rows = tuple(
        (row["what"], *(_number(row.get(column), ".3f") for column in columns))
        for row in record["energies"]
    )
    return PageSection(
        "Energies",
        "In eV above the lowest energy of the reference. Energies of the model are "
        "shifted by the median difference on the reference, where it has energies.",
        ("potential energy", "mean", "σ", "lowest", "highest", "frames"),
        rows,
        draw_energies(check),
    )


def _about_torsions(record: dict[str, Any]) -> str:
    mirrored = record["reference"]["mirror_images_averaged"]
    return "Free energies of torsions; ×3 pools what symmetry makes alike. " + (
        "The molecule is achiral: mirror images are averaged."
        if mirrored
        else "The molecule may be chiral: mirror images are not averaged."
    )


def _chains(check: SamplingCheck, record: dict[str, Any]) -> PageSection:
    assert check.chains is not None
    chains, on_reference = record["chains"], check.on_reference
    offset = 0.0 if on_reference is None else on_reference.offset
    known = check.reference.energies
    zero = float(known.min()) + offset if known is not None else 0.0
    spurious = _number(record["spurious"]["fraction"], ".2g")
    return PageSection(
        "Chains",
        f"{chains['n_chains']} chains of {chains['steps']:,} steps of "
        f"{chains['timestep_fs']:g} fs; friction {chains['friction_per_ps']:g} / ps; "
        f"kinetic temperature {_measure(chains, 'kinetic_temperature')}; "
        f"{chains['n_blow_ups']} blow-ups; {spurious} of the frames are spurious.",
        ("chain", "step", "blown up because"),
        tuple(
            (str(event["chain"]), f"{event['step']:,}", event["reason"])
            for event in chains["blow_ups"]
        ),
        draw_chains(check.chains, zero=zero),
    )


def _metrics(record: dict[str, Any]) -> PageSection:
    return PageSection(
        "Metrics",
        "Noise: what two halves of the reference, or of the sample, are apart.",
        (
            "observable",
            "metric",
            "value",
            "noise of reference",
            "noise of sample",
            "ratio",
        ),
        tuple(
            (
                row["observable"],
                METRICS[row["metric"]],
                f"{_number(row['value'], '.3g')} {row['unit']}",
                _number(row["noise_floor"], ".3g"),
                _number(row["noise_of_sample"], ".3g"),
                _number(row["ratio"], ".2f"),
            )
            for row in record["metrics"]
        ),
    )


def _convergence(record: dict[str, Any]) -> PageSection:
    sample = {row["name"]: row for row in record["convergence"]}
    rows = tuple(
        (
            row["name"],
            _number(row["r_hat"], ".3f"),
            _number(row["effective_size"], ".0f"),
            _number(sample.get(row["name"], {}).get("r_hat"), ".3f"),
            _number(sample.get(row["name"], {}).get("effective_size"), ".0f"),
        )
        for row in record["reference"]["convergence"]
    )
    sides, measures = ("reference", "sample"), ("R-hat", "effective size")
    return PageSection(
        "Convergence",
        "R-hat near one: parts of the same set agree. Effective size: how many "
        "independent frames the correlated ones are worth.",
        ("quantity", *(f"{what}, {of}" for of in sides for what in measures)),
        rows,
    )


def _provenance(record: dict[str, Any], command: str) -> PageSection:
    reference, model = record["reference"], record["model"] or {}
    known = {
        "command": command,
        "reference": reference["path"],
        "reference, SHA-256": reference["sha256"],
        "labels": reference["labels"],
        "model": model.get("name"),
        "model, SHA-256": model.get("sha256"),
        "forces": model.get("forces"),
        "force MAE on the reference": _with_unit(
            model.get("force_mae_eV_per_A"), 1e3, "meV/Å"
        ),
        "energy MAE on the reference": _with_unit(
            model.get("energy_mae_eV"), 1e3, "meV"
        ),
        **record["versions"],
    }
    rows = tuple((key, str(value)) for key, value in known.items() if value)
    return PageSection("Provenance", "", ("", ""), rows)


def _with_unit(value: float | None, factor: float, unit: str) -> str | None:
    return None if value is None else f"{factor * value:.1f} {unit}"


def _measure(values: dict[str, Any], name: str) -> str:
    value, error = values[f"{name}_K"], values[f"{name}_error_K"]
    return "unknown" if value is None else f"{value:.0f} ± {_number(error, '.0f')} K"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else format(value, form)
