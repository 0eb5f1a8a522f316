"""Figures of oxygen reduction: free-energy diagrams and the volcano."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crack_md.plots.style import BLUE, GREEN, GRID, INK, MUTED, ORANGE, RED, png, style
from crack_md.workflows.orr import (
    EQUILIBRIUM_V,
    INTERMEDIATES,
    NO_SOLVATION,
    STATES,
    FreeEnergyDiagram,
    Volcano,
)
from crack_md.workflows.screening.results import (
    ScreenResult,
    SlabResult,
    dissolves_first,
)

COLORS = (INK, BLUE, ORANGE, GREEN, RED)
LABELS = ("O₂ + 4(H⁺+e⁻)", "OOH*", "O*", "OH*", "2 H₂O")
HALF_WIDTH = 0.3
DIAGRAM_WIDTH_IN, DIAGRAM_HEIGHT_IN = 3.6, 4.2


def free_energy_png(
    diagrams: Mapping[str, FreeEnergyDiagram],
    *,
    potentials_V: Sequence[float] = (0.0, EQUILIBRIUM_V),
) -> bytes:
    """Return the diagrams of some surfaces as a PNG image."""
    with style():
        return png(draw_free_energy(diagrams, potentials_V=potentials_V))


def draw_free_energy(
    diagrams: Mapping[str, FreeEnergyDiagram],
    *,
    potentials_V: Sequence[float] = (0.0, EQUILIBRIUM_V),
) -> Figure:
    """Return one panel per potential, with one staircase per surface.

    Levels that were inferred by scaling are dotted.

    Args:
        diagrams: by name of the surface; a handful stays readable.
        potentials_V: against RHE.
    """
    size = (0.6 + DIAGRAM_WIDTH_IN * len(potentials_V), DIAGRAM_HEIGHT_IN)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(potentials_V), squeeze=False)[0]
    for axes, potential in zip(panels, potentials_V, strict=True):
        for number, (name, diagram) in enumerate(diagrams.items()):
            color = COLORS[number % len(COLORS)]
            # matplotlib hides labels that begin with an underscore
            shown = f" {name}" if name.startswith("_") else name
            label = f"{shown}, U_L {diagram.limiting_potential:.2f} V"
            _staircase(axes, diagram, potential, color=color, label=label)
        axes.set(
            title=f"U = {potential:.2f} V",
            xticks=range(len(STATES)),
            xlim=(-0.5, len(STATES) - 0.5),
        )
        axes.set_xticklabels(LABELS, rotation=30, ha="right")
        axes.axhline(0.0, color=MUTED, linewidth=0.8)
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("free energy against 2 H₂O / eV")
    if diagrams:
        legend = panels[0].legend(fontsize=8, loc="upper right")
        for text in legend.get_texts():
            text.set_parse_math(False)  # names hold what they like, dollars too
    figure.supxlabel("dotted: inferred by scaling", fontsize=7.5, color=MUTED)
    return figure


def _staircase(
    axes: Axes,
    diagram: FreeEnergyDiagram,
    potential_V: float,
    *,
    color: str,
    label: str,
) -> None:
    levels = diagram.levels(potential_V)
    for place, (state, level) in enumerate(zip(STATES, levels, strict=True)):
        guessed = state.rstrip("*") in diagram.inferred
        axes.plot(
            [place - HALF_WIDTH, place + HALF_WIDTH],
            [level, level],
            color=color,
            linewidth=2.2,
            linestyle=":" if guessed else "-",
            label=label if place == 0 else None,
        )
    for place in range(len(levels) - 1):
        axes.plot(
            [place + HALF_WIDTH, place + 1 - HALF_WIDTH],
            levels[place : place + 2],
            color=color,
            linewidth=0.8,
            alpha=0.6,
        )


WIDTH_IN, HEIGHT_IN = 7.2, 4.8
LABEL_PT = 8.0
MAX_LABELS = 40
OVERLAP = 12.0
"""What a name pays for lying on another; on a point it pays 8."""


class SurfaceKind(NamedTuple):
    """How surfaces of a kind are marked; by shape as well, where a page says so."""

    meaning: str
    color: str
    marker: str


KINDS = {
    "platinum": SurfaceKind("platinum", INK, "D"),
    "metal": SurfaceKind("other pure metals", BLUE, "s"),
    "alloy": SurfaceKind("alloys, skins", ORANGE, "o"),
}


@dataclass(frozen=True)
class VolcanoPoint:
    """A surface in the volcano: ΔG in eV across, limiting potential in V up."""

    name: str
    formula: str
    dG_eV: float
    potential_V: float
    interval_eV: tuple[float, float] | None = None
    dissolves: bool = False
    """Whether an atom of the surface leaves below the limiting potential."""

    @property
    def kind(self) -> str:
        """Return to which of `KINDS` the surface belongs."""
        elements = set(re.findall(r"[A-Z][a-z]?", self.formula))
        if elements == {"Pt"}:
            return "platinum"
        return "metal" if len(elements) == 1 else "alloy"


def volcano_png(result: ScreenResult) -> bytes:
    """Return the volcano of a screening as a PNG image."""
    with style():
        return png(draw_volcano(result))


def draw_volcano(result: ScreenResult) -> Figure:
    """Return the volcano with one labelled point per ranked slab."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.add_subplot()
    points = [p for slab in result.slabs if (p := _point(slab, result)) is not None]
    low, high = _limits([p.dG_eV for p in points])
    floor = min([0.0, *(p.potential_V for p in points)]) - 0.12
    draw_curve(axes, Volcano("O", result.settings.scaling_set), (low, high), floor)
    axes.axhline(EQUILIBRIUM_V, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.text(
        high, EQUILIBRIUM_V + 0.015, "equilibrium, 1.23 V", ha="right", color=MUTED
    )
    axes.set(xlim=(low, high), ylim=(floor, 1.34))
    scatter_points(axes, points)
    _mark_dissolving(axes, points)
    if points:
        axes.legend(loc="upper left", ncols=3, handletextpad=0.2, columnspacing=1.2)
    figure.draw_without_rendering()
    name_points(axes, points[:MAX_LABELS])
    _captions(axes, result)
    return figure


def _point(slab: SlabResult, result: ScreenResult) -> VolcanoPoint | None:
    if slab.rank is None or slab.diagram is None:
        return None
    diagram = slab.diagram
    return VolcanoPoint(
        slab.name,
        slab.formula,
        diagram.dG_O_eV,
        diagram.limiting_potential,
        dissolves=bool(dissolves_first(slab, result).below),
    )


def _mark_dissolving(axes: Axes, points: Sequence[VolcanoPoint]) -> None:
    """Draw a red rim around what would dissolve below its limiting potential."""
    chosen = [p for p in points if p.dissolves]
    if chosen:
        axes.scatter(
            [p.dG_eV for p in chosen],
            [p.potential_V for p in chosen],
            s=110,
            facecolor="none",
            edgecolor=RED,
            linewidth=1.4,
            zorder=4,
            label="dissolves below U_L",
            gid="dissolving",
        )


def _limits(values: list[float]) -> tuple[float, float]:
    """Return the shown range: all points, and always the apex."""
    low, high = min([0.9, *values]), max([2.5, *values])
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def draw_curve(
    axes: Axes, volcano: Volcano, x_range: tuple[float, float], floor: float
) -> None:
    """Draw the volcano over a range of ΔG, with the grid and the names of both axes."""
    grid = np.linspace(*x_range, 801)
    curve = volcano.potential(grid)
    axes.fill_between(
        grid, floor, curve, color=BLUE, alpha=0.05, linewidth=0, gid="area"
    )
    axes.plot(grid, curve, color=MUTED, linewidth=1.4, zorder=2, gid="curve")
    axes.set(
        xlabel=f"ΔG({volcano.adsorbate}*) / eV, against H₂O and H₂",
        ylabel="limiting potential / V vs RHE",
    )
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def scatter_points(
    axes: Axes, points: Sequence[VolcanoPoint], *, by_shape: bool = False
) -> None:
    """Mark the points; those of a kind are one part, ``points-platinum`` and so on."""
    for name, kind in KINDS.items():
        chosen = [p for p in points if p.kind == name]
        if chosen:
            axes.scatter(
                [p.dG_eV for p in chosen],
                [p.potential_V for p in chosen],
                s=44,
                marker=kind.marker if by_shape else "o",
                color=kind.color,
                edgecolor="white",
                linewidth=0.9,
                zorder=4,
                label=kind.meaning,
                gid=f"points-{name}",
            )


def name_points(
    axes: Axes, points: Sequence[VolcanoPoint], *, crowd: Sequence[VolcanoPoint] = ()
) -> None:
    """Name the points without covering a point, the curve, or another name.

    Each name tries places around its point, near ones first; the best of the list, by
    overlap, is taken. Greedy, so that the same result always gives the same figure.

    Args:
        axes: laid out already.
        points: to name, the most important first.
        crowd: all points, where a name that finds no free place is left out.
    """
    to_pixels = axes.transData.transform
    places = [(p.dG_eV, p.potential_V) for p in crowd or points]
    dots = to_pixels(places) if places else np.empty((0, 2))
    curve = to_pixels(np.asarray(axes.lines[0].get_xydata()))
    scale = axes.figure.dpi / 72.0
    taken: list[tuple[float, float, float, float]] = []
    frame = axes.get_window_extent()
    for number, point in enumerate(points):
        dot = to_pixels((point.dG_eV, point.potential_V))
        width = 0.58 * LABEL_PT * len(point.name) * scale
        height = 1.25 * LABEL_PT * scale
        best, best_cost = None, np.inf
        for ring, radius in enumerate((9.0, 18.0, 28.0, 40.0, 54.0)):
            for angle in np.radians([0, 180, 45, 135, -45, -135, 90, -90]):
                center = dot + radius * scale * np.array([np.cos(angle), np.sin(angle)])
                x = center[0] - width * (1 - np.cos(angle)) / 2
                y = center[1] - height / 2
                box = (x, y, x + width, y + height)
                cost = ring + _crowding(box, dots, curve, taken)
                inside = frame.x0 < x and x + width < frame.x1 and y > frame.y0
                cost += 0.0 if inside else 100.0
                if cost < best_cost:
                    best, best_cost = box, cost
        assert best is not None
        if crowd and best_cost >= OVERLAP:
            continue
        taken.append(best)
        _write(axes, point, dot, best, number)


def _crowding(
    box: tuple[float, float, float, float],
    dots: np.ndarray,
    curve: np.ndarray,
    taken: list[tuple[float, float, float, float]],
) -> float:
    x0, y0, x1, y1 = box
    cost = 0.0
    for points, weight, gap in ((dots, 8.0, 5.0), (curve, 0.05, 2.0)):
        inside = (
            (points[:, 0] > x0 - gap)
            & (points[:, 0] < x1 + gap)
            & (points[:, 1] > y0 - gap)
            & (points[:, 1] < y1 + gap)
        )
        cost += weight * float(inside.sum())
    for other in taken:
        apart = x1 < other[0] or other[2] < x0 or y1 < other[1] or other[3] < y0
        cost += 0.0 if apart else OVERLAP
    return cost


def _write(
    axes: Axes,
    point: VolcanoPoint,
    dot: np.ndarray,
    box: tuple[float, float, float, float],
    number: int,
) -> None:
    middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    nearest = np.clip(dot, [box[0], box[1]], [box[2], box[3]])
    from_pixels = axes.transData.inverted().transform
    if np.linalg.norm(nearest - dot) > 8.0 * axes.figure.dpi / 72.0:
        ends = from_pixels([dot, nearest])
        axes.plot(*ends.T, color=MUTED, linewidth=0.6, zorder=3, gid=f"leader-{number}")
    x, y = from_pixels(middle)
    axes.text(
        x,
        y,
        point.name,
        fontsize=LABEL_PT,
        ha="center",
        va="center",
        zorder=5,
        parse_math=False,  # names hold what they like, dollars too
        gid=f"label-{number}",
    )


def _captions(axes: Axes, result: ScreenResult) -> None:
    ranked = sum(slab.rank is not None for slab in result.slabs)
    left_out = len(result.slabs) - ranked
    title = f"Oxygen reduction on {ranked} surfaces, model {result.model.name}"
    axes.set_title(title, pad=10, parse_math=False)
    guessed = {
        name
        for slab in result.slabs
        if slab.diagram is not None
        for name in slab.diagram.inferred
    }
    inferred = " and ".join(f"{n}*" for n in INTERMEDIATES[::-1] if n in guessed)
    settings = result.settings
    note = f"scaling {settings.scaling_set}, corrections {settings.corrections}"
    if settings.solvation_set != NO_SOLVATION:
        note += f", water {settings.solvation_set}"
    note = f"{inferred} inferred ({note})" if inferred else note
    if left_out:
        note += f"; {left_out} without a result, see results.csv"
    axes.figure.supxlabel(note, fontsize=7.5, color=RED if not ranked else MUTED)
