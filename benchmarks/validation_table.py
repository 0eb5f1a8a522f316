"""The scores of several models side by side: a table for documents, and a figure.

    python benchmarks/validation_table.py student=student.json teacher=teacher.json \
        --figure validation.png

Files are those that `screening.py score --json` writes; the figure is about the first.
"""

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.literature import LITERATURE
from benchmarks.scores import Scores, agreement
from benchmarks.validation import SHORTLIST, TOP, volcano_potentials
from crack_md.plots.style import BLUE, GREEN, GRID, INK, MUTED, ORANGE, png, style

SHIFTED = "MAE_after_shift_eV"
ROWS = (
    ("**GPAW-RPBE, alloys, relative to Pt(111)**", "gpaw"),
    ("alloys", "gpaw relative_to_Pt111 n"),
    ("MAE / eV", "gpaw relative_to_Pt111 MAE_eV"),
    ("MAE after one shift / eV", f"gpaw relative_to_Pt111 {SHIFTED}"),
    ("Spearman", "gpaw relative_to_Pt111 spearman"),
    (f"top-{TOP} recall: DFT's {TOP} best in the model's {TOP}", "gpaw top_recall"),
    ("by chance", "gpaw top_recall_by_chance"),
    (f"DFT's {TOP} best in the model's {SHORTLIST}", "gpaw top_among_shortlist"),
    ("by chance", "gpaw top_among_shortlist_by_chance"),
    (f"the teacher's {TOP} best in the model's {TOP}", "gpaw to_teacher top_recall"),
    (
        f"the teacher's {TOP} best in the model's {SHORTLIST}",
        "gpaw to_teacher top_among_shortlist",
    ),
    ("MAE to the teacher after one shift / eV", f"gpaw to_teacher {SHIFTED}"),
    ("not converged, failed", "gpaw not_converged|failed"),
    ("**PBE, (111) metals, four sites**", "xu_kitchin"),
    ("energies", "xu_kitchin all_sites n"),
    ("MAE after one shift / eV", f"xu_kitchin all_sites {SHIFTED}"),
    ("the same, fcc sites only / eV", f"xu_kitchin fcc_of_metals {SHIFTED}"),
    ("Spearman", "xu_kitchin all_sites spearman"),
    ("pairs of sites in the order of DFT", "xu_kitchin site_order_accuracy"),
    ("metals with the right best site", "xu_kitchin best_site_right"),
    ("MAE to the teacher after one shift / eV", f"xu_kitchin to_teacher {SHIFTED}"),
    ("not converged, failed", "xu_kitchin not_converged|failed"),
    ("**Published O\\* on (111) metals, best site**", "literature"),
    ("Pt(111) against H2O and H2 / eV", "literature Pt111_eV"),
    ("Falsig: metals", "literature Falsig n"),
    ("Falsig: MAE / eV", "literature Falsig MAE_eV"),
    ("Falsig: after one shift / eV", f"literature Falsig {SHIFTED}"),
    ("Falsig: Spearman", "literature Falsig spearman"),
    ("Blondal and Kreitz: metals", "literature Blondal-Kreitz n"),
    (
        "Blondal and Kreitz: after one shift / eV",
        f"literature Blondal-Kreitz {SHIFTED}",
    ),
    ("Blondal and Kreitz: Spearman", "literature Blondal-Kreitz spearman"),
    ("Xu and Kitchin: metals", "literature Xu-Kitchin n"),
    ("Xu and Kitchin: after one shift / eV", f"literature Xu-Kitchin {SHIFTED}"),
    ("Xu and Kitchin: Spearman", "literature Xu-Kitchin spearman"),
    ("**The teacher, example surfaces**", "teacher"),
    ("slabs", "teacher best_site_per_slab n"),
    ("best site: MAE / eV", "teacher best_site_per_slab MAE_eV"),
    ("best site: Spearman", "teacher best_site_per_slab spearman"),
    ("all sites: MAE / eV", "teacher sites MAE_eV"),
    ("pairs of sites in the order of the teacher", "teacher site_order_accuracy"),
    ("slabs with the right best site", "teacher best_site_right"),
    ("**Speed, relaxations per second of one core**", "gpaw"),
    ("45 metal atoms", "gpaw relaxations_per_cpu_s"),
    ("steps of the optimizer each", "gpaw steps_per_relaxation"),
    ("16 metal atoms", "xu_kitchin relaxations_per_cpu_s"),
    ("steps of the optimizer each", "xu_kitchin steps_per_relaxation"),
)
COUNTS = ("n", "steps_per_relaxation")


def table(models: dict[str, Scores]) -> str:
    """Return a Markdown table with one column per model."""
    lines = [f"| | {' | '.join(models)} |", f"|---|{'---:|' * len(models)}"]
    for label, path in ROWS:
        heading = label.startswith("**")
        cells = ["" if heading else cell(scores, path) for scores in models.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(scores: Scores, path: str) -> str:
    """Return a number of the scores as text; a dash where there is none."""
    *parts, last = path.split()
    found: Any = scores
    for part in parts:
        found = found.get(part, {})
    values = [found.get(name) for name in last.split("|")]
    if values[0] is None:
        return "–"
    if last in COUNTS or len(values) > 1:
        return ", ".join(f"{value:.0f}" for value in values)
    if last.startswith("relaxations"):
        return f"{values[0]:.2g}"
    return f"{values[0]:.{2 if _is_share(last) else 3}f}"


def between_sources() -> list[str]:
    """Return how far published columns are from one another, after one shift."""
    lines = []
    for first, second in combinations(LITERATURE, 2):
        one, other = (LITERATURE[name].energies_eV for name in (first, second))
        metals = [metal for metal in one if metal in other]
        found = agreement(
            np.array([one[metal] for metal in metals]),
            np.array([other[metal] for metal in metals]),
        )
        lines.append(
            f"{first} and {second}: {found[SHIFTED]:.3f} eV after one shift, Spearman "
            f"{found['spearman']:.2f}, {len(metals)} metals"
        )
    return lines


def draw(scores: Scores) -> Figure:
    """Return a figure: parity and ranks of alloys, and the sites of metals."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    parity, ranks, sites = figure.subplots(1, 3)
    platinum, *alloys = scores["gpaw"]["values"]
    dft = np.array([each["dft"] - platinum["dft"] for each in alloys])
    model = np.array([each["model"] - platinum["model"] for each in alloys])
    families = {"agpt": ("Ag–Pt", BLUE), "irpd": ("Ir–Pd", ORANGE)}
    families["ptru"] = ("Pt–Ru", GREEN)
    places = [
        np.argsort(np.argsort(-volcano_potentials(energies))) + 1
        for energies in (dft, model)
    ]
    ranks.fill_between([0.5, TOP + 0.5], 0.5, TOP + 0.5, color=GRID, zorder=0)
    for family, (label, color) in families.items():
        of = np.array([each["name"].startswith(family) for each in alloys])
        look: dict[str, Any] = {"s": 22, "color": color, "edgecolors": "white"}
        look |= {"linewidths": 0.5, "zorder": 2}
        parity.scatter(dft[of], model[of], label=label, **look)
        ranks.scatter(places[0][of], places[1][of], **look)
    _diagonal(parity, "ΔE(O*) – Pt(111), DFT / eV", "model / eV")
    _diagonal(ranks, f"rank by U_L, DFT (grey: best {TOP})", "rank by U_L, model")
    pairs = scores["xu_kitchin"]["values"]
    shift = scores["xu_kitchin"]["all_sites"]["shift_eV"]
    marks = {"fcc": "o", "hcp": "^", "bridge": "s", "ontop": "D"}
    for (site, mark), color in zip(
        marks.items(), (BLUE, GREEN, ORANGE, INK), strict=True
    ):
        at = [each for each in pairs if each["site"] == site]
        x = [each["dft"] for each in at]
        y = [each["model"] - shift for each in at]
        sites.scatter(x, y, s=22, marker=mark, color=color, label=site, zorder=2)
    _diagonal(sites, "E(O*) on metals, DFT / eV", "model, shifted / eV")
    parity.set_title(f"{len(alloys)} alloys")
    ranks.set_title("the same, ranked")
    sites.set_title(f"{len(pairs)} sites of metals")
    for axes in (parity, sites):
        axes.legend(loc="upper left", fontsize=8.5, handletextpad=0.1)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and write the figure where one is wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scores", nargs="+", metavar="NAME=SCORES.JSON")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args(arguments)
    files = dict(entry.split("=", 1) for entry in options.scores)
    models = {name: json.loads(Path(path).read_text()) for name, path in files.items()}
    print(table(models))
    print("\nPublished columns:", *between_sources(), sep="\n")
    if options.figure is not None:
        with style():
            content = png(draw(next(iter(models.values()))), dpi=120)
        options.figure.write_bytes(content)


def _is_share(name: str) -> bool:
    return (
        name in ("spearman", "best_site_right")
        or name.startswith("top")
        or "order" in name
    )


def _diagonal(axes: Axes, across: str, up: str) -> None:
    """Give both axes one range, and draw where they are equal."""
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, zorder=1)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel=across, ylabel=up)
    axes.set_aspect("equal")


if __name__ == "__main__":
    main()
