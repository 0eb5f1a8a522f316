"""Figures of an evaluation: parity, elements, embeddings, and how the run went."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from ase.data import chemical_symbols
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter
from numpy.typing import NDArray

from crack_md.plots.style import BLUE, GREEN, GRID, INK, MUTED, ORANGE, RED
from crack_md.training.inspection import ElementErrors, EmbeddingMap, Inspection

COLORS = (BLUE, ORANGE, GREEN, RED, "#cc79a7", "#56b4e9", INK)
NOT_CURVES = frozenset(
    {"step", "elapsed_s", "lr", "gradient_norm", "skipped", "step_s", "loss"}
)


def draw_parity(seen: Inspection) -> Figure:
    """Return model against label: energies per atom by kind, forces by density."""
    figure = Figure(figsize=(9.2, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    truth = seen.energy_label / seen.n_atoms
    guess = seen.energy / seen.n_atoms
    kinds = np.array(seen.kind)
    for index, kind in enumerate(dict.fromkeys(seen.kind)):
        mine = kinds == kind
        left.plot(
            truth[mine],
            guess[mine],
            ".",
            color=COLORS[index % len(COLORS)],
            markersize=4,
            alpha=0.7,
            label=f"{kind} ({mine.sum()})",
        )
    left.legend(loc="lower right", fontsize=8, markerscale=2)
    _parity_axes(left, truth, guess, "energy, eV/atom", 1e3, "meV/atom")
    truth, guess = (
        forces[seen.free].ravel() for forces in (seen.forces_label, seen.forces)
    )
    limit = float(np.abs([truth, guess]).max(initial=1e-3))
    shown = right.hexbin(
        truth,
        guess,
        gridsize=70,
        bins="log",
        mincnt=1,
        extent=(-limit, limit, -limit, limit),
        cmap="Blues",
        linewidths=0.1,
    )
    figure.colorbar(shown, ax=right, label="force components", pad=0.02)
    _parity_axes(right, truth, guess, "force component, eV/Å", 1e3, "meV/Å")
    return figure


def draw_elements(rows: Sequence[ElementErrors]) -> Figure:
    """Return force errors per element with intervals, beside what zero forces miss."""
    figure = Figure(figsize=(max(4.5, 1.6 + 0.62 * len(rows)), 3.6))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    middle = np.array([row.force_mae_meV_per_A for row in rows])
    low = middle - [row.low_meV_per_A for row in rows]
    high = [row.high_meV_per_A for row in rows] - middle
    axes.bar(places, middle, width=0.62, color=BLUE, label="model")
    axes.errorbar(
        places, middle, [low, high], fmt="none", ecolor=INK, elinewidth=1, capsize=2.5
    )
    axes.plot(
        places,
        [row.zero_force_baseline_meV_per_A for row in rows],
        "_",
        color=RED,
        markersize=16,
        markeredgewidth=2,
        label="zero forces",
    )
    names = [f"{row.symbol}\n{row.n_atoms:,}" for row in rows]
    axes.set_xticks(places, names)
    axes.set(yscale="log", ylabel="force MAE, meV/Å", xlabel="element, free atoms")
    for part in ("major", "minor"):  # 300, not 3 x 10^2
        getattr(axes.yaxis, f"set_{part}_formatter")(FormatStrFormatter("%g"))
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def draw_embedding(shown: EmbeddingMap) -> Figure:
    """Return teacher beside student: PCA and t-SNE, by element and coordination."""
    figure = Figure(figsize=(12.5, 6.4), layout="constrained")
    panels = figure.subplots(2, 4)
    pairs = (
        ("PCA", shown.pca_teacher, shown.pca_student),
        ("t-SNE", shown.tsne_teacher, shown.tsne_student),
    )
    for row, (method, teacher, student) in zip(panels, pairs, strict=True):
        for number, (whose, points) in enumerate(
            [("teacher", teacher), ("student", student)] * 2
        ):
            axes: Axes = row[number]
            both = np.concatenate([teacher, student])
            axes.set(xlim=_span(both[:, 0]), ylim=_span(both[:, 1]))
            axes.set(xticks=[], yticks=[], title=f"{method}, {whose}")
            by_element = number < 2
            if by_element:
                _by_element(axes, points, shown.numbers)
            else:
                _by_coordination(axes, points, shown.coordination, figure, number == 3)
            if by_element and number == 0 and method == "PCA":
                first, second = (f"{100 * share:.0f} %" for share in shown.explained)
                axes.set(xlabel=f"PC 1 ({first})", ylabel=f"PC 2 ({second})")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=12,
        fontsize=9,
        markerscale=2.5,
        handletextpad=0.1,
        columnspacing=1.0,
    )
    figure.suptitle(
        f"{len(shown.numbers):,} atoms, coloured by element (left) and coordination "
        f"(right); cosine {shown.cosine:.3f}, CKA {shown.cka:.3f}",
        x=0.01,
        ha="left",
    )
    return figure


def draw_training(records: Sequence[dict[str, Any]]) -> Figure:
    """Return losses and validation errors over the steps of a run."""
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [record for record in records if "loss" in record]
    names = [key for key in (steps[0] if steps else {}) if key not in NOT_CURVES]
    names = [key for key in names if isinstance(steps[0][key], (int, float))]
    for index, name in enumerate(names):
        with_it = [record for record in steps if record.get(name, 0) > 0]
        left.plot(
            [record["step"] for record in with_it],
            _smooth([record[name] for record in with_it]),
            color=COLORS[index % len(COLORS)],
            linewidth=1.3,
            label=name,
        )
    left.set(yscale="log", xlabel="step", ylabel="loss, before its weight")
    if names:
        left.legend(fontsize=8)
    _validation(right, records)
    for axes in (left, right):
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
    return figure


def _validation(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    checks = [record for record in records if "val_force_mae_meV_per_A" in record]
    lines = (
        ("val_force_mae_meV_per_A", "forces, meV/Å", BLUE),
        ("val_energy_mae_meV_per_atom", "energy, meV/atom", ORANGE),
    )
    for key, label, color in lines:
        axes.plot(
            [record["step"] for record in checks],
            [record[key] for record in checks],
            "o-",
            color=color,
            markersize=4,
            label=label,
        )
    axes.set(yscale="log", xlabel="step", ylabel="MAE on validation frames")
    if checks:
        axes.legend(fontsize=8)


def _parity_axes(
    axes: Axes,
    truth: NDArray[np.float64],
    guess: NDArray[np.float64],
    quantity: str,
    factor: float,
    unit: str,
) -> None:
    both = np.concatenate([truth, guess])
    span = _span(both)
    axes.plot(span, span, color=MUTED, linewidth=0.8, zorder=0)
    axes.set(xlim=span, ylim=span, aspect="equal")
    axes.set(xlabel=f"label: {quantity}", ylabel=f"model: {quantity}")
    error = factor * (guess - truth)
    axes.text(
        0.04,
        0.96,
        f"MAE {np.abs(error).mean():.1f} {unit}\n"
        f"RMSE {np.sqrt((error**2).mean()):.1f} {unit}",
        transform=axes.transAxes,
        va="top",
    )


def _by_element(
    axes: Axes, points: NDArray[np.float64], numbers: NDArray[np.int64]
) -> None:
    elements = np.unique(numbers)
    # few elements get the palette; with many, ASE's own colors
    palette = dict(zip(elements, (*COLORS, "#b8a900", "#8c564b", MUTED), strict=False))
    for element in elements:
        mine = numbers == element
        axes.plot(
            *points[mine].T,
            ".",
            color=palette.get(element, tuple(jmol_colors[element])),
            markersize=3,
            label=chemical_symbols[element],
        )


def _by_coordination(
    axes: Axes,
    points: NDArray[np.float64],
    coordination: NDArray[np.int64],
    figure: Figure,
    with_bar: bool,
) -> None:
    shown = axes.scatter(
        points[:, 0],
        points[:, 1],
        c=np.clip(coordination, 0, 12),
        s=3,
        cmap=mpl.colormaps["viridis"],
        vmin=0,
        vmax=12,
    )
    if with_bar:
        figure.colorbar(shown, ax=axes, label="coordination", ticks=[0, 3, 6, 9, 12])


def _span(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """Return a running mean over a fiftieth of the run, shorter at both ends."""
    width = max(1, len(values) // 50)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.minimum(np.arange(len(values)) + width + 1, len(values))
    starts = np.maximum(np.arange(len(values)) - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
