"""Points of a volcano, and where their names go."""

from collections.abc import Sequence
from dataclasses import dataclass

from crack_md.plots.screening.axes import Axes
from crack_md.plots.screening.markup import Markup, tag
from crack_md.plots.screening.view import Interval, SlabView
from crack_md.workflows.orr.diagram import Volcano

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
