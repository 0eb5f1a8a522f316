"""Free-energy diagrams of oxygen reduction as SVG, one per candidate."""

from collections.abc import Sequence

import numpy as np

from crack_md.plots.screening.axes import Axes, line, text, ticks
from crack_md.plots.screening.markup import Markup, join, tag
from crack_md.plots.screening.view import SlabView

WIDTH, HEIGHT = 400, 225
STATES = ("O₂", "OOH*", "O*", "OH*", "H₂O")
ELECTRONS_LEFT = np.arange(4, -1, -1)
LEVEL_PX = 40.0


def draw_diagram(slab: SlabView) -> Markup:
    """Return the four steps at U = 0 and at the limiting potential.

    Names of states that were inferred by scaling are pale.
    """
    still = levels(slab, 0.0)
    potential = -float(np.diff(still).max())
    driven = levels(slab, potential)
    low = min(-0.35, *(level - 0.35 for level in (*driven, *still)))
    high = max(5.5, *(level + 0.5 for level in (*driven, *still)))
    axes = Axes(44, 10, WIDTH - 48, HEIGHT - 38, (0.0, 5.0), (low, high))
    places = [axes.x(0.5 + number) for number in range(5)]
    grid = join(
        join(
            [
                line(axes.left, axes.y(value), axes.right, axes.y(value), "grid"),
                text(axes.left - 8, axes.y(value) + 4, name, "tick", anchor="end"),
            ]
        )
        for value, name in ticks(axes.y_range, 6)
    )
    return tag(
        "svg",
        grid,
        _names(slab, places, axes),
        axes.upright(12, "ΔG / eV"),
        _path(still, places, axes, "still"),
        _path(driven, places, axes, "driven", slab.limiting_step),
        _values(still, places, axes),
        _key(potential, axes),
        class_="chart diagram",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label="Free energies in eV at U = 0: "
        + ", ".join(f"{s} {v:.2f}" for s, v in zip(STATES, still, strict=True)),
    )


def levels(slab: SlabView, potential_V: float) -> list[float]:
    """Return the levels of `STATES` in eV: ΔG - n·eU with n electrons to come."""
    return [float(e) for e in np.array(slab.levels) - ELECTRONS_LEFT * potential_V]


def limiting_step(slab: SlabView) -> str:
    """Return the step that limits the potential, as ``OH* → H₂O``."""
    return f"{STATES[slab.limiting_step]} → {STATES[slab.limiting_step + 1]}"


def _names(slab: SlabView, places: Sequence[float], axes: Axes) -> Markup:
    known = {f"{name}*" for name in slab.free_energies} | {STATES[0], STATES[-1]}
    return join(
        text(
            x,
            axes.bottom + 18,
            name,
            "state" if name in known else "state inferred",
            anchor="middle",
        )
        for x, name in zip(places, STATES, strict=True)
    )


def _key(potential: float, axes: Axes) -> Markup:
    named = f"U = {potential:.2f} V".replace("-", "−")
    return join(
        [
            text(axes.right, axes.top + 12, "U = 0", "key still", anchor="end"),
            text(axes.right, axes.top + 28, named, "key driven", anchor="end"),
        ]
    )


def _path(
    energies: Sequence[float],
    places: Sequence[float],
    axes: Axes,
    class_: str,
    limiting: int | None = None,
) -> Markup:
    """Return levels joined by thin lines; the limiting step stands out."""
    half = LEVEL_PX / 2
    parts = []
    for step in range(4):
        ends = (places[step] + half, places[step + 1] - half)
        heights = axes.y(energies[step]), axes.y(energies[step + 1])
        name = "joint limiting" if step == limiting else "joint"
        parts.append(line(ends[0], heights[0], ends[1], heights[1], name))
    for x, energy in zip(places, energies, strict=True):
        parts.append(line(x - half, axes.y(energy), x + half, axes.y(energy), "level"))
    return tag("g", *parts, class_=class_)


def _values(energies: Sequence[float], places: Sequence[float], axes: Axes) -> Markup:
    return join(
        text(
            x,
            axes.y(energy) - 6,
            f"{energy:.2f}".replace("-", "−"),
            "value",
            anchor="middle",
        )
        for x, energy in zip(places, energies, strict=True)
    )
