r"""Students of MD17 before and after CRMSE: a table and a figure of finished runs.

    python benchmarks/md17.py runs/md17/ethanol_* --data runs/md17/ethanol.aselmdb \
        --reference rmd17 --molecule ethanol \
        --write docs/crmse.md --figure docs/images/md17_ethanol.png

A run is a folder of `crack-md train` with the results of `crack-md sample` inside, in
`sampling`. benchmarks/crmse.py makes them.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.speed_table import write_section
from crack_md.data.dataset import read_dataset
from crack_md.errors import CrackError
from crack_md.models.checkpoint import load_model
from crack_md.plots.style import BLUE, INK, MUTED, ORANGE
from crack_md.study.summary import Spread, compare_spreads
from crack_md.training.evaluation import evaluate
from crack_md.training.loop.build import build_frames
from crack_md.workflows.sampling.molecule import (
    MoleculeTopology,
    find_molecule,
    torsion_angles,
)
from crack_md.workflows.sampling.reference import ReferenceFrames, read_reference

COLUMNS = (
    "frames",
    "seed",
    "losses",
    "updates",
    "forces, meV/Å",
    "energies, meV",
    "⟨U⟩ of chains, eV",
    "F(φ), meV",
    "worst × floor",
    "spurious",
    "blow-ups",
    "verdict",
)
MARGIN_EV = 0.6
"""What figures show beyond the energies of the reference."""
BINS_DEGREES = np.linspace(-180, 180, 37)


@dataclass(frozen=True)
class Run:
    """A trained student and what its chains did."""

    folder: Path
    provenance: dict[str, Any]
    force_mae: float
    """meV/Å, of the test frames."""
    energy_mae: float
    """meV."""
    check: dict[str, Any]
    """sampling.json."""

    @property
    def label(self) -> str:
        """Return the number of frames and the losses."""
        losses = " + ".join(
            "energies, forces" if one["kind"] == "task" else one["kind"].upper()
            for one in self.provenance["losses"]
        )
        again = "" if self.has_chains or not self._goes_on else ", longer"
        return f"{self.provenance['data']['n_train']} frames, {losses}{again}"

    @property
    def _goes_on(self) -> bool:
        return bool(self.provenance["config"]["student"].get("init_from"))

    @property
    def has_chains(self) -> bool:
        """Return whether the student was trained against its chains."""
        return any(one["kind"] == "crmse" for one in self.provenance["losses"])


def read_run(folder: Path, data: Path) -> Run:
    """Return a run with its errors on the test frames of the data."""
    model = load_model(folder / "student.pt")
    frames = build_frames(read_dataset(data).select("test"), model)
    errors = evaluate(model, frames).all
    return Run(
        folder,
        dict(model.metadata.provenance),
        errors.force_mae_meV_per_A,
        errors.energy_mae_meV,
        json.loads((folder / "sampling" / "sampling.json").read_text()),
    )


def _size(run: Run) -> int:
    return int(run.provenance["data"]["n_train"])


def _seed(run: Run) -> int:
    return int(run.provenance["config"]["run"]["seed"])


def _worst(run: Run) -> float | None:
    ratios = [m["ratio"] for m in run.check["metrics"] if m["ratio"] is not None]
    return max(ratios, default=None)


MEASURES: dict[str, Callable[[Run], float | None]] = {
    "forces, meV/Å": lambda run: run.force_mae,
    "energies, meV": lambda run: run.energy_mae,
    "worst × floor": _worst,
}


def summary(runs: list[Run]) -> str:
    """Return means over seeds in Markdown, and differences with 95 % intervals.

    Those are less the students trained for longer, seed by seed, and for these less the
    students they came from.
    """
    header = ["frames", "losses", "PASS", *MEASURES, *(f"Δ {one}" for one in MEASURES)]
    lines = [header, ["---"] * len(header)]
    groups: dict[tuple[int, str], list[Run]] = {}
    for run in runs:
        losses = run.label.split(" frames, ")[1]
        groups.setdefault((_size(run), losses), []).append(run)
    for (size, losses), group in groups.items():
        n_passed = sum(run.check["verdict"] == "PASS" for run in group)
        first = "energies, forces"
        other = first if losses.endswith("longer") else f"{first}, longer"
        against = None if losses == first else groups.get((size, other))
        lines.append(
            [
                str(size),
                losses,
                f"{n_passed}/{len(group)}",
                *(_mean(_over_seeds(group, name)) for name in MEASURES),
                *(_less(group, against, name) for name in MEASURES),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _over_seeds(group: list[Run], name: str) -> Spread:
    found = {_seed(run): MEASURES[name](run) for run in group}
    return Spread({seed: one for seed, one in found.items() if one is not None})


def _mean(spread: Spread) -> str:
    if not spread.values:
        return ""
    return f"{spread.mean:.1f}" + ("" if spread.std is None else f" ± {spread.std:.1f}")


def _less(group: list[Run], against: list[Run] | None, name: str) -> str:
    if against is None:
        return ""
    one, other = _over_seeds(group, name), _over_seeds(against, name)
    if not one.values or not other.values:
        return ""
    found = compare_spreads(one, other)
    if found.half_width is None:
        return f"{found.mean:+.1f}"
    tie = " (tie)" if found.is_tie else ""
    return f"{found.mean:+.1f} ± {found.half_width:.1f}{tie}"


def table(runs: list[Run]) -> str:
    """Return all runs in Markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(_row(run) for run in runs)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(run: Run) -> tuple[str, ...]:
    check, told = run.check, run.provenance
    metrics = check["metrics"]
    torsions = [
        metric["value"]
        for metric in metrics
        if metric["metric"] == "rmse_F" and metric["value"] is not None
    ]
    worst = _worst(run)
    chain_energy = next(
        (one for one in check["energies"] if one["what"] == "model on its chains"), None
    )
    spurious = check["spurious"]["fraction"]
    frames, losses = run.label.split(" frames, ")
    return (
        frames,
        str(_seed(run)),
        losses,
        f"{told['training']['steps']:,}",
        f"{run.force_mae:.1f}",
        f"{run.energy_mae:.1f}",
        "" if chain_energy is None else _spread(chain_energy),
        f"{max(torsions):.1f}" if torsions else "",
        "" if worst is None else f"{worst:.1f}",
        "" if spurious is None else f"{spurious:.2g}",
        str(check["chains"]["n_blow_ups"]),
        check["verdict"],
    )


def _spread(energies: dict[str, float]) -> str:
    return f"{energies['mean_eV']:.3f} ± {energies['std_eV']:.3f}"


def draw(runs: list[Run], reference: ReferenceFrames) -> Figure:
    """Return energies and the free energy of the last torsion, a row for each size."""
    sizes = list(dict.fromkeys(map(_size, runs)))
    molecule = find_molecule(reference.numbers, reference.positions)
    figure = Figure(figsize=(7.2, 2.3 * len(sizes)), layout="constrained")
    grid = figure.subplots(len(sizes), 2, squeeze=False)
    for size, axes in zip(sizes, grid, strict=True):
        _draw_reference(axes, reference, molecule)
        for run in runs:
            if _size(run) == size:
                _draw_run(axes, run, reference, molecule)
        axes[0].set_ylabel(f"{size} frames", color=INK)
    grid[-1, 0].set_xlabel("potential energy, eV above the lowest of DFT")
    grid[-1, 1].set_xlabel(f"torsion {molecule.torsions[-1].name}, degrees")
    handles = {
        label: handle
        for axes in grid[:, 0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    grid[0, 0].legend(handles.values(), handles, frameon=False, fontsize=8)
    grid[0, 1].set_title("F(φ), meV", fontsize=9, color=MUTED)
    grid[0, 0].set_title("density, 1/eV", fontsize=9, color=MUTED)
    return figure


def _draw_reference(
    axes: np.ndarray, reference: ReferenceFrames, molecule: MoleculeTopology
) -> None:
    assert reference.energies is not None, "rMD17 has energies"
    energies = reference.energies - reference.energies.min()
    bins = _energy_bins(reference)
    _histogram(axes[0], energies, bins, color=MUTED, label="DFT", filled=True)
    _profile(axes[1], reference.positions, reference, molecule, color=MUTED, width=3)


def _draw_run(
    axes: np.ndarray, run: Run, reference: ReferenceFrames, molecule: MoleculeTopology
) -> None:
    with np.load(run.folder / "sampling" / "chains.npz", allow_pickle=False) as file:
        frames, energies = file["positions"], file["energies"]
    first = len(frames) // 5
    color = BLUE if run.has_chains else ORANGE
    label = "with CRMSE" if run.has_chains else "energies and forces"
    zero = reference.energies.min() + run.check["model"]["energy_offset_eV"]
    above = energies[first:].ravel() - zero
    _histogram(axes[0], above, _energy_bins(reference), color=color, label=label)
    positions = frames[first:].reshape(-1, *frames.shape[2:])
    _profile(axes[1], positions, reference, molecule, color=color)


def _energy_bins(reference: ReferenceFrames) -> np.ndarray:
    """Return edges in eV above the lowest energy of the reference."""
    return np.linspace(-MARGIN_EV, np.ptp(reference.energies) + MARGIN_EV, 80)


def _histogram(
    axes: Axes,
    energies: np.ndarray,
    bins: np.ndarray,
    *,
    color: str,
    label: str,
    filled: bool = False,
) -> None:
    axes.hist(
        energies.clip(bins[0], bins[-1]),  # what is beyond stands at the edge
        bins=bins,
        density=True,
        histtype="stepfilled" if filled else "step",
        alpha=0.35 if filled else 1.0,
        color=color,
        label=label,
    )


def _profile(
    axes: Axes,
    positions: np.ndarray,
    reference: ReferenceFrames,
    molecule: MoleculeTopology,
    *,
    color: str,
    width: float = 1.0,
) -> None:
    angles = torsion_angles(positions, molecule.torsions[-1], mirrored=True)
    counts, _ = np.histogram(angles.ravel(), bins=BINS_DEGREES)
    heat = 1000 * units.kB * reference.known_temperature
    free = -heat * np.log((counts + 0.5) / (counts + 0.5).max())
    middles = (BINS_DEGREES[1:] + BINS_DEGREES[:-1]) / 2
    axes.plot(middles, free, color=color, linewidth=width)


def main(arguments: list[str] | None = None) -> None:
    """Print the table of runs; write it and the figure where asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of training runs")
    parser.add_argument("--data", type=Path, required=True, help="with test frames")
    parser.add_argument("--reference", type=Path, required=True, help="rMD17's files")
    parser.add_argument("--molecule", required=True)
    parser.add_argument("--write", type=Path, help="document with a marked section")
    parser.add_argument("--figure", type=Path, help="PNG file")
    options = parser.parse_args(arguments)
    try:
        runs = [read_run(folder, options.data) for folder in options.runs]
        runs.sort(key=lambda run: (_size(run), _seed(run)))
        text = f"{summary(runs)}\n\n{table(runs)}"
        print(text)
        if options.write:
            write_section(options.write, text, name=f"md17 {options.molecule}")
        if options.figure:
            reference = read_reference(options.reference, molecule=options.molecule)
            draw(runs, reference).savefig(options.figure, dpi=110)
    except (CrackError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
