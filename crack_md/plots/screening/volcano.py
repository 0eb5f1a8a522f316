"""The volcano as SVG: whole without scripts, and ready for the page's script.

The script reads ``data-x``, ``data-y``, ``data-low`` and ``data-high`` of every point,
in eV and V, to move points when the reader zooms, and to tell about them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crack_md.plots.screening.markup import Axes, Markup, join, line, tag, text, ticks
from crack_md.plots.screening.view import Interval, ReportView, SlabView
from crack_md.workflows.orr import EQUILIBRIUM_V, Volcano

FEW = 60
"""Slabs up to which all intervals and most names are drawn."""
MAX_LABELS = 24
LABEL_PX, LINE_PX = 6.6, 13


@dataclass(frozen=True)
class Point:
    """A slab in the volcano: ΔG in eV across, potential in V up."""

    slab: SlabView
    x: float
    y: float
    interval_eV: Interval | None


def draw_names(points: Sequence[Point], axes: Axes, volcano: Volcano) -> list[Markup]:
    """Return names beside the first points, off the volcano, marks and each other.

    A name that finds no room near its point is left out; the pointer tells it.
    """
    apex, few = volcano.apex[0], len(points) <= FEW
    # a mark takes the room of a short name at its height
    boxes = [(axes.x(p.x) - 6, axes.x(p.x) + 6, axes.y(p.y) + 4) for p in points if few]
    drawn = []
    for point in points[: MAX_LABELS if few else 8]:
        x, y = axes.x(point.x), axes.y(point.y)
        width = LABEL_PX * len(point.slab.name)
        outside = -1 if point.x < apex else 1
        # above the line on its outer side, or below it where no crowd of points is
        above = [(outside, dy) for dy in (-7.0, -21.0, -35.0, -49.0)]
        below = [(-outside, dy) for dy in (17.0, 31.0)]
        places = [above[0], below[0], above[1], below[1], *above[2:]] if few else above
        for side, dy in places:
            start = x + 9 if side > 0 else x - 9 - width
            box = (start, start + width, y + dy)
            inside = axes.left < start and start + width < axes.right
            inside = inside and axes.top + LINE_PX < y + dy < axes.bottom - 2
            if inside and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                drawn.append(_label(point, axes, side * 9.0, dy))
                break
    return drawn


def _overlap(
    one: tuple[float, float, float], other: tuple[float, float, float]
) -> bool:
    """Return whether two lines of text (left, right, height) touch."""
    apart = one[1] < other[0] or other[1] < one[0]
    return not apart and abs(one[2] - other[2]) < LINE_PX


def _label(point: Point, axes: Axes, dx: float, dy: float) -> Markup:
    return tag(
        "text",
        point.slab.name,
        class_="label",
        text_anchor="end" if dx < 0 else "start",
        x=axes.x(point.x) + dx,
        y=axes.y(point.y) + dy,
        data_x=f"{point.x:.6f}",
        data_y=f"{point.y:.6f}",
        data_dx=dx,
        data_dy=dy,
        data_slab=point.slab.index,
    )


WIDTH, HEIGHT = 1080, 470
LEFT, TOP, RIGHT, BOTTOM = 70, 44, 66, 56
KINDS = {"platinum": "Pt", "metal": "other pure metals", "alloy": "alloys, skins"}


def draw_volcano(view: ReportView, volcano: Volcano) -> Markup:
    """Return the volcano with one point per ranked slab."""
    points = [
        Point(
            slab=slab,
            x=slab.free_energy(volcano.adsorbate),
            y=slab.U_L_V,
            interval_eV=_interval(slab, volcano.adsorbate),
        )
        for slab in view.ranked
        if slab.U_L_V is not None and slab.free_energies
    ]
    axes = _axes(points, volcano)
    adsorbate = volcano.adsorbate
    return tag(
        "svg",
        tag("clipPath", _frame(axes), id="plot-area"),
        _overpotential_axis(axes),
        axes.grid(
            f"ΔG({adsorbate}*) / eV, against H₂O and H₂",
            "limiting potential / V vs RHE",
        ),
        _legend(points, volcano),
        tag(
            "g",
            *_curves(axes, volcano),
            *(_point(point, axes, len(points)) for point in reversed(points)),
            *draw_names(points, axes, volcano),
            clip_path="url(#plot-area)",
            class_="data",
        ),
        tag("rect", class_="selection", hidden=True),
        id="volcano-chart",
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label="Limiting potential over adsorption free energy; the table below "
        "has the same numbers",
        data_plot=json.dumps([axes.left, axes.top, axes.width, axes.height]),
        data_range=json.dumps([*axes.x_range, *axes.y_range]),
    )


def kind_of(slab: SlabView) -> str:
    """Return to which kind of surface a slab belongs: a key of `KINDS`."""
    elements = set(re.findall(r"[A-Z][a-z]?", slab.formula))
    if elements == {"Pt"}:
        return "platinum"
    return "metal" if len(elements) == 1 else "alloy"


def _interval(slab: SlabView, adsorbate: str) -> Interval | None:
    """Return the interval of ΔG in eV; None where that is inferred."""
    energy = slab.energies.get(adsorbate)
    return None if energy is None else energy.interval_eV


def _axes(points: Sequence[Point], volcano: Volcano) -> Axes:
    """Return axes that show all points, and always the apex."""
    apex, top = volcano.apex
    low = min([apex - 0.6, *(point.x for point in points)])
    high = max([apex + 0.6, *(point.x for point in points)])
    margin = 0.05 * (high - low)
    floor = min([0.2, *(point.y for point in points)]) - 0.08
    top = max([top, *(point.y for point in points)])
    return Axes(
        LEFT,
        TOP,
        WIDTH - LEFT - RIGHT,
        HEIGHT - TOP - BOTTOM,
        (low - margin, high + margin),
        (floor, top + 0.14 * (top - floor)),
    )


def _frame(axes: Axes) -> Markup:
    return tag("rect", x=axes.left, y=axes.top, width=axes.width, height=axes.height)


def _curves(axes: Axes, volcano: Volcano) -> list[Markup]:
    """Return the volcano, and paler ones by the other scalings."""
    drawn = [_curve(axes, other, "curve other") for other in volcano.others]
    return [*drawn, _curve(axes, volcano, "curve")]


def _curve(axes: Axes, volcano: Volcano, class_: str) -> Markup:
    # straight between its corners: these and both ends are all of it
    low, high = axes.x_range
    x = np.array([low, *(c for c in volcano.corners if low < c < high), high])
    y = volcano.potential(x)
    pixels = [(axes.x(float(a)), axes.y(float(b))) for a, b in zip(x, y, strict=True)]
    return tag(
        "polyline",
        points=" ".join(f"{a:.1f},{b:.1f}" for a, b in pixels),
        class_=class_,
        data_x=json.dumps(x.round(6).tolist()),
        data_y=json.dumps(y.round(6).tolist()),
    )


def _point(point: Point, axes: Axes, n_points: int) -> Markup:
    """Return the mark of a slab, its interval, and its name for readers of titles."""
    slab, x, y = point.slab, axes.x(point.x), axes.y(point.y)
    low, high = point.interval_eV or (point.x, point.x)
    interval = line(axes.x(low) - x, 0.0, axes.x(high) - x, 0.0, "interval")
    few = n_points <= FEW
    return tag(
        "g",
        tag("title", f"{slab.name}: ΔG {point.x:.2f} eV, U_L {point.y:.2f} V"),
        *([interval] if point.interval_eV else []),
        _mark(kind_of(slab)),
        class_=f"point {kind_of(slab)}{'' if few else ' many'}",
        transform=f"translate({x:.2f} {y:.2f})",
        data_slab=slab.index,
        data_x=f"{point.x:.6f}",
        data_y=f"{point.y:.6f}",
        data_low=f"{low:.6f}",
        data_high=f"{high:.6f}",
    )


def _mark(kind: str) -> Markup:
    """Return a mark told apart by shape as well as by color."""
    if kind == "platinum":
        return tag("path", d="M0 -6.5L6.5 0L0 6.5L-6.5 0Z", class_="mark")
    if kind == "metal":
        return tag("rect", x=-4.5, y=-4.5, width=9, height=9, class_="mark")
    return tag("circle", r=5.2, class_="mark")


def _overpotential_axis(axes: Axes) -> Markup:
    """Return the scale on the right: what is missing to equilibrium."""
    low, high = axes.y_range
    shown = (EQUILIBRIUM_V - high, EQUILIBRIUM_V - low)
    numbers = (
        text(axes.right + 8, axes.y(EQUILIBRIUM_V - value) + 4, name, "tick")
        for value, name in ticks(shown, axes.height / 55)
    )
    name = axes.upright(axes.right + 48, "overpotential / V", turn=90)
    held = tag("g", *numbers, class_="right-ticks", data_equilibrium=str(EQUILIBRIUM_V))
    return join([held, name])


def _legend(points: Sequence[Point], volcano: Volcano) -> Markup:
    """Return marks with their meaning, and the names of the scalings."""
    shown, x = [], float(LEFT)
    for kind, meaning in KINDS.items():
        if any(kind_of(point.slab) == kind for point in points):
            mark = tag(
                "g", _mark(kind), transform=f"translate({x + 6:.0f} 20)", class_=kind
            )
            shown += [mark, text(x + 18, 24, meaning, "legend-text")]
            x += 44 + 6.8 * len(meaning)
    others = ", ".join(other.scaling for other in volcano.others)
    names = [(f"scaling {volcano.scaling}", "curve")]
    names += [(f"other scalings: {others}", "curve other")] if others else []
    for name, class_ in names:
        shown += [
            line(x, 20, x + 26, 20, class_),
            text(x + 32, 24, name, "legend-text"),
        ]
        x += 60 + 6.4 * len(name)
    return tag("g", *shown, class_="legend")
