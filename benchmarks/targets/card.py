"""A model card: what the model file says, what was measured, what it is not for.

A card is Markdown with three sections between marks that are written anew, and with
words of its author around them that stay.
"""

from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from benchmarks.speed_table import write_section
from benchmarks.targets.table import card_table
from crack_md.cli.models import describe
from crack_md.models.checkpoint import load_model
from crack_md.models.force_field import ForceField
from crack_md.models.limits import Limits
from crack_md.models.registry import dated_name

Record = dict[str, Any]
SECTIONS = ("about", "measured", "limits")
SKELETON = """# {name}

<!-- about: begin -->
<!-- about: end -->

## Measured

<!-- measured: begin -->
<!-- measured: end -->

## Limits

<!-- limits: begin -->
<!-- limits: end -->
"""


def write_card(path: Path, record: Record) -> None:
    """Write the sections of a card; a card that is not there is begun.

    Args:
        path: of the Markdown file.
        record: what `packaged_student.py` measured, its model included.
    """
    model = load_model(record["model"])
    if model.metadata.sha256 != record["model_sha256"]:
        raise SystemExit(
            f"'{record['model']}' is not the model that was measured; measure it again"
        )
    name = dated_name(record["model"]) or Path(record["model"]).stem
    if not path.exists():
        path.write_text(SKELETON.format(name=name), encoding="utf-8")
    texts = {
        "about": about(model, name=name),
        "measured": card_table(record),
        "limits": limits_text(model.metadata.limits),
    }
    document = path.read_text(encoding="utf-8")
    for section in SECTIONS:
        if f"<!-- {section}: begin -->" in document or section == "measured":
            write_section(path, texts[section], name=section)


def about(model: ForceField, *, name: str) -> str:
    """Return a table of what the model file says about itself."""
    summary = describe(model, name=name, kind="", sha256=model.metadata.sha256)
    provenance = summary["provenance"]
    gas = summary["gas_references_eV"].items()
    rows = {
        "name": name,
        "weights": f"{summary['parameters']:,}; {summary['sizes']}",
        "cutoff": f"{summary['cutoff_A']:g} Å",
        "forces": summary["forces"],
        "repulsion at short range": summary["short_range"],
        "elements": ", ".join(summary["elements"]),
        "gas energies": ", ".join(f"{key} {value:.3f} eV" for key, value in gas),
        **{key: _plain(provenance.get(key)) for key in ("teacher", "data", "licence")},
        "sha256": summary["sha256"],
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def limits_text(limits: Limits | None) -> str:
    """Return the limits of a model as sentences."""
    if limits is None:
        return "The model file carries no limits."
    lines = []
    if limits.adsorbates:
        names = ", ".join(f"{name}\\*" for name in limits.adsorbates)
        lines.append(f"Adsorbates: {names}; others are `out_of_domain`.")
    for number, share in limits.largest_shares.items():
        symbol = chemical_symbols[number]
        lines.append(f"{symbol} near the surface: at most {100 * share:g} %.")
    if limits.smallest_area_A2:
        lines.append(f"At least {limits.smallest_area_A2:g} Å² for each adsorbate.")
    plain = limits.plain()
    if "most_oxygen_per_metal" in plain:
        most = plain["most_oxygen_per_metal"]
        lines.append(f"No oxides: at most {most:g} O for each metal atom.")
    for number, text in limits.doubtful_elements.items():
        lines.append(f"{chemical_symbols[number]}: {text}.")
    for spread in limits.label_spreads:
        metals = ", ".join(chemical_symbols[z] for z in sorted(spread.metals))
        lines.append(f"Spread of the labels, {spread.spread_eV:.2f} eV: {metals}.")
    return "\n".join(f"- {line}" for line in lines) or "No limits are set."


def _plain(value: Any) -> str:
    """Return a value on one line of a table; folders of paths are left out."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_plain, value))
    text = "" if value is None else " ".join(str(value).split())
    return text.rpartition("/")[2].replace("|", "\\|")
