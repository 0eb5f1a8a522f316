"""Figures of a study: errors of all methods, and errors over the budget."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from crack_md.plots.style import BLUE, GREEN, GRID, INK, MUTED, ORANGE, RED, png, style
from crack_md.study.summary import COLUMNS, Row, Spread, StudySummary, number

BARS = ("force_mae_meV_per_A", "energy_mae_meV_per_atom", "embedding_cosine")
CURVES = BARS[:2]
WIDTH_IN, ROW_IN = 3.3, 0.34
COLORS = (BLUE, ORANGE, GREEN, RED, "#cc79a7", "#56b4e9", INK, "#b8a900")
MARKERS = "osD^vP*X"
"""Both, since a study may have more methods than there are colors to tell apart."""


def write_figures(summary: StudySummary, folder: Path) -> list[Path]:
    """Write figure.png, and curve.png where there are several budgets."""
    written = []
    with style():
        if any(row.columns for row in summary.rows):
            written.append(folder / "figure.png")
            written[-1].write_bytes(png(draw_bars(summary)))
            if len(summary.budgets) > 1:
                written.append(folder / "curve.png")
                written[-1].write_bytes(png(draw_curves(summary)))
    return written


def draw_bars(summary: StudySummary) -> Figure:
    """Return one panel per measure: mean and deviation, and a dot per seed.

    Shown is the last budget that has results.
    """
    budget = [row.budget for row in summary.rows if row.columns][-1]
    rows = summary.of_budget(budget)
    shown = [key for key in BARS if any(key in row.columns for row in rows)]
    height = 1.3 + ROW_IN * len(rows)
    figure = Figure(figsize=(WIDTH_IN * len(shown), height), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, shown, strict=True):
        _bars(axes, rows, key)
        _teacher_line(axes, summary, key)
    panels[0].set_yticks(range(len(rows)), [row.method for row in rows])
    panels[0].invert_yaxis()
    figure.suptitle(f"{summary.title}, {budget.replace('-', ' ')}", x=0.01, ha="left")
    return figure


def draw_curves(summary: StudySummary) -> Figure:
    """Return errors over steps, or over frames where only those differ.

    Each method is a line through its means, each seed a dot.
    """
    figure = Figure(figsize=(2 * WIDTH_IN + 1.6, 3.8), layout="constrained")
    panels = figure.subplots(1, len(CURVES), squeeze=False)[0]
    methods = dict.fromkeys(row.method for row in summary.rows)
    done = [row for row in summary.rows if "steps" in row.columns]
    unit = _varied_unit(done)
    spent = sorted({_spent(row, unit) for row in done})
    for axes, key in zip(panels, CURVES, strict=True):
        for index, method in enumerate(methods):
            rows = [r for r in summary.rows if r.method == method and key in r.columns]
            _curve(axes, rows, key, index, unit)
        _teacher_line(axes, summary, key, vertical=False)
        axes.set(xscale="log", yscale="log", xlabel=unit, ylabel=COLUMNS[key].title)
        axes.set_xticks(spent, [f"{value:g}" for value in spent])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))  # 300, not 3 x 10^2
        axes.yaxis.set_minor_formatter(FuncFormatter(_plain))
        axes.grid(color=GRID, linewidth=0.7, which="both")
        axes.set_axisbelow(True)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    figure.suptitle(summary.title, x=0.01, ha="left")
    return figure


def _bars(axes: Axes, rows: tuple[Row, ...], key: str) -> None:
    low, high = _limits([row.columns[key] for row in rows if key in row.columns])
    for height, row in enumerate(rows):
        spread = row.columns.get(key)
        if spread is None:
            place = axes.get_yaxis_transform()  # x from 0 to 1, whatever is shown
            axes.text(
                0.02, height, "no result", transform=place, color=MUTED, va="center"
            )
            continue
        if low == 0:  # a bar that starts elsewhere would lie about ratios
            axes.barh(height, spread.mean, color=BLUE, alpha=0.3, height=0.66)
        axes.errorbar(
            spread.mean,
            height,
            xerr=spread.std,
            color=INK,
            marker="D",
            markersize=4,
            capsize=3,
        )
        values = list(spread.values.values())
        axes.scatter(values, [height] * len(values), s=13, color=BLUE, zorder=4)
    axes.set(xlabel=COLUMNS[key].title, xlim=(low, high), ylim=(-0.6, len(rows) - 0.4))
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _limits(spreads: list[Spread]) -> tuple[float, float]:
    """Return the range of all seeds and error bars, from zero where it shows."""
    ends = [end for one in spreads for end in one.values.values()]
    ends += [one.mean + sign * (one.std or 0) for one in spreads for sign in (-1, 1)]
    low, high = min(ends), max(ends)
    margin = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    start = 0.0 if 0 <= low < 0.75 * high else low - margin
    return start, high + margin


def _plain(value: float, _: int | None = None) -> str:
    leading = f"{value:.0e}"[0]
    return f"{value:g}" if leading in "12356" else ""  # the rest would crowd


def _teacher_line(
    axes: Axes, summary: StudySummary, key: str, *, vertical: bool = True
) -> None:
    value = number(summary.teacher or {}, COLUMNS[key].place)
    if value is None or key == "embedding_cosine":
        return
    draw = axes.axvline if vertical else axes.axhline
    draw(value, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="teacher")
    if not vertical:
        return
    low, high = axes.get_xlim()
    if value < low:
        axes.set_xlim(value - 0.05 * (high - value), high)
    place = axes.get_xaxis_transform()  # y from 0 to 1
    axes.text(value, 1.0, "teacher", transform=place, color=MUTED, size=8, ha="center")


def _varied_unit(rows: Sequence[Row]) -> str:
    """Return what the budgets differ in: "frames" where all have the same steps."""
    frames = all("-frames" in row.budget for row in rows)
    same = len({_spent(row, "steps") for row in rows}) == 1
    return "frames" if frames and same else "steps"


def _spent(row: Row, unit: str) -> float:
    if unit == "steps":
        return row.columns["steps"].mean
    found = re.search(r"(\d+)-frames", row.budget)
    assert found is not None, "asked only of budgets of frames"
    return float(found[1])


def _curve(axes: Axes, rows: list[Row], key: str, index: int, unit: str) -> None:
    points = [(_spent(row, unit), row.columns[key]) for row in rows]
    points.sort(key=lambda point: point[0])
    if not points:
        return
    color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
    steps = np.array([step for step, _ in points])
    means = np.array([spread.mean for _, spread in points])
    name = rows[0].method
    axes.plot(steps, means, color=color, marker=marker, markersize=5, label=name)
    for step, spread in points:
        values = list(spread.values.values())
        axes.scatter([step] * len(values), values, s=8, color=color, alpha=0.5)
