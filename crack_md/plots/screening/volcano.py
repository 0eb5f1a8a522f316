"""The volcano of a page: matplotlib draws it, and the page's script moves its parts.

Every point says in ``data-x``, ``data-y``, ``data-low`` and ``data-high``, in eV and V,
where it is, and the drawing in ``data-plot`` and ``data-range`` where its axes are.
"""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crack_md.plots.orr import (
    KINDS,
    VolcanoPoint,
    draw_curve,
    name_points,
    scatter_points,
)
from crack_md.plots.screening.view import ReportView, SlabView
from crack_md.plots.style import (
    FAINT,
    POINTS_PER_INCH,
    SVG,
    as_svg,
    marks_of,
    part_of,
    style,
)
from crack_md.workflows.orr import EQUILIBRIUM_V, Volcano

FEW = 60
"""Slabs up to which all intervals and most names are drawn."""
MAX_LABELS = 24
SIZE_IN = (13.0, 5.8)
LABEL = (
    "Limiting potential over adsorption free energy; the table below has the same "
    "numbers"
)


def ranked_points(
    view: ReportView, volcano: Volcano
) -> list[tuple[SlabView, VolcanoPoint]]:
    """Return the slabs that have a place in the volcano, best first."""
    return [
        (
            slab,
            VolcanoPoint(
                slab.name,
                slab.formula,
                slab.free_energy(volcano.adsorbate),
                slab.U_L_V,
                # of what is inferred there is none
                slab.energies[volcano.adsorbate].interval_eV
                if volcano.adsorbate in slab.energies
                else None,
                dissolves=slab.dissolves,
            ),
        )
        for slab in view.ranked
        if slab.U_L_V is not None and slab.free_energies
    ]


def draw_volcano(points: Sequence[VolcanoPoint], volcano: Volcano) -> Figure:
    """Return the figure: curves of all scalings, points, intervals, names."""
    with style():
        figure = Figure(figsize=SIZE_IN, dpi=POINTS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        x_range, y_range = _ranges(points, volcano)
        draw_curve(axes, volcano, x_range, y_range[0])
        axes.lines[0].set_label(f"scaling {volcano.scaling}")
        for number, other in enumerate(volcano.others):
            x = np.asarray(axes.lines[0].get_xdata())
            (curve,) = axes.plot(x, other.potential(x), color=FAINT, linestyle="--")
            curve.set(linewidth=1.2, zorder=1.9, gid=f"other-{number}")
            curve.set_label(f"scaling {other.scaling}")
        axes.set(xlim=x_range, ylim=y_range)
        both: Any = (_missing_to, _missing_to)  # each is the other's inverse
        right = axes.secondary_yaxis("right", functions=both)
        right.set_ylabel("overpotential / V")
        for kind in KINDS:
            _draw_intervals(axes, kind, points)
        scatter_points(axes, points, by_shape=True)
        figure.legend(loc="outside upper left", ncols=7, handletextpad=0.4)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names and the script rely on this layout
        few = len(points) <= FEW
        name_points(axes, points[: MAX_LABELS if few else 8], crowd=points)
    return figure


def volcano_svg(view: ReportView, volcano: Volcano) -> ET.Element:
    """Return the volcano of a page."""
    pairs = ranked_points(view, volcano)
    slabs, points = [slab for slab, _ in pairs], [point for _, point in pairs]
    figure = draw_volcano(points, volcano)
    drawing = as_svg(figure, name="volcano-chart", label=LABEL)
    axes = figure.axes[0]
    box = axes.get_window_extent()
    height = SIZE_IN[1] * POINTS_PER_INCH
    drawing.attrib |= {
        "class": "chart",
        "data-plot": json.dumps([box.x0, height - box.y1, box.width, box.height]),
        "data-range": json.dumps([*axes.get_xlim(), *axes.get_ylim()]),
        "data-equilibrium": str(EQUILIBRIUM_V),
    }
    _mark_points(drawing, slabs, points)
    for number, slab in enumerate(slabs[:MAX_LABELS]):
        for gid, name in ((f"label-{number}", "label"), (f"leader-{number}", "leader")):
            part = part_of(drawing, gid)
            if part is not None:
                _say(part, name, slab, points[number])
    ET.SubElement(drawing, f"{{{SVG}}}rect", {"class": "selection", "hidden": ""})
    return drawing


def _mark_points(
    drawing: ET.Element, slabs: Sequence[SlabView], points: Sequence[VolcanoPoint]
) -> None:
    """Tell of every mark and interval whose it is, and where."""
    many = "" if len(points) <= FEW else " many"
    for kind in KINDS:
        own = [pair for pair in zip(slabs, points, strict=True) if pair[1].kind == kind]
        marks = marks_of(drawing, f"points-{kind}")
        for (slab, point), mark in zip(own, marks, strict=True):
            rim = " dissolves" if point.dissolves else ""
            _say(mark, f"point {kind}{many}{rim}", slab, point)
            title = ET.SubElement(mark, f"{{{SVG}}}title")
            title.text = (
                f"{point.name}: ΔG {point.dG_eV:.2f} eV, U_L {point.potential_V:.2f} V"
            )
        shared = part_of(drawing, f"points-{kind}")
        for path in () if shared is None else shared.iter(f"{{{SVG}}}path"):
            path.attrib.pop("style", None)  # each mark has its own, which changes
        known = [pair for pair in own if pair[1].interval_eV is not None]
        lines = marks_of(drawing, f"intervals-{kind}")
        for (slab, point), line in zip(known, lines, strict=True):
            _say(line, f"interval {kind}{many}", slab, point)


def _say(part: ET.Element, name: str, slab: SlabView, point: VolcanoPoint) -> None:
    low, high = point.interval_eV or (point.dG_eV, point.dG_eV)
    part.attrib |= {
        "class": name,
        "data-slab": str(slab.index),
        "data-x": f"{point.dG_eV:.6f}",
        "data-y": f"{point.potential_V:.6f}",
        "data-low": f"{low:.6f}",
        "data-high": f"{high:.6f}",
    }


def _missing_to(potential_V: float) -> float:
    """Return what is missing to the equilibrium potential, and back."""
    return EQUILIBRIUM_V - potential_V


def _draw_intervals(axes: Axes, kind: str, points: Sequence[VolcanoPoint]) -> None:
    own = [p for p in points if p.kind == kind and p.interval_eV is not None]
    if own:
        low, high = zip(*(p.interval_eV or () for p in own), strict=True)
        heights = [p.potential_V for p in own]
        lines = axes.hlines(heights, low, high, color=KINDS[kind].color, linewidth=1.4)
        lines.set(alpha=0.32, zorder=3, gid=f"intervals-{kind}")


def _ranges(
    points: Sequence[VolcanoPoint], volcano: Volcano
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges of ΔG and of potentials: all points, and always the apex."""
    apex, top = volcano.apex
    low = min([apex - 0.6, *(point.dG_eV for point in points)])
    high = max([apex + 0.6, *(point.dG_eV for point in points)])
    margin = 0.05 * (high - low)
    floor = min([0.2, *(point.potential_V for point in points)]) - 0.08
    top = max([top, *(point.potential_V for point in points)])
    return (low - margin, high + margin), (floor, top + 0.14 * (top - floor))
