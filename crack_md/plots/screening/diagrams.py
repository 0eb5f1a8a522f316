"""Free-energy diagrams of oxygen reduction as SVG, one per candidate."""

from collections.abc import Sequence

import numpy as np

from crack_md.plots.screening.axes import Axes, line, text, ticks
from crack_md.plots.screening.markup import Markup, join, tag
from crack_md.workflows.activity import Volcano
from crack_md.workflows.orr import FOUR_ELECTRONS_EV

WIDTH, HEIGHT = 400, 225
STATES = ("O₂", "OOH*", "O*", "OH*", "H₂O")
ELECTRONS_LEFT = np.arange(4, -1, -1)
LEVEL_PX = 40.0


def draw_diagram(dG_eV: float, volcano: Volcano) -> Markup:
    """Return the four steps at U = 0 and at the limiting potential.

    Args:
        dG_eV: free energy of the volcano's adsorbate.
        volcano: gives the other intermediates.
    """
    potential = float(volcano.potential(np.array(dG_eV)))
    still = levels(dG_eV, volcano, 0.0)
    driven = levels(dG_eV, volcano, potential)
    limiting = int(volcano.steps(np.array(dG_eV)).argmax())
    low = min(-0.35, min(driven) - 0.35)
    axes = Axes(44, 10, WIDTH - 48, HEIGHT - 38, (0.0, 5.0), (low, 5.5))
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
    names = join(
        text(x, axes.bottom + 18, name, "state", anchor="middle")
        for x, name in zip(places, STATES, strict=True)
    )
    key = tag(
        "g",
        text(axes.right, axes.top + 12, "U = 0", "key still", anchor="end"),
        text(
            axes.right,
            axes.top + 28,
            f"U = {potential:.2f} V",
            "key driven",
            anchor="end",
        ),
    )
    return tag(
        "svg",
        grid,
        names,
        axes.upright(12, "ΔG / eV"),
        _path(still, places, axes, "still"),
        _path(driven, places, axes, "driven", limiting),
        _values(still, places, axes),
        key,
        class_="chart diagram",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label="Free energies in eV at U = 0: "
        + ", ".join(f"{s} {v:.2f}" for s, v in zip(STATES, still, strict=True)),
    )


def levels(dG_eV: float, volcano: Volcano, potential_V: float) -> list[float]:
    """Return the levels of `STATES` in eV: ΔG - n·eU with n electrons to come."""
    between = volcano.intermediates(np.array(dG_eV))
    at_zero = np.array([FOUR_ELECTRONS_EV, *between, 0.0])
    return [float(level) for level in at_zero - ELECTRONS_LEFT * potential_V]


def limiting_step(dG_eV: float, volcano: Volcano) -> str:
    """Return the step that limits the potential, as ``OH* → H₂O``."""
    step = int(volcano.steps(np.array(dG_eV)).argmax())
    return f"{STATES[step]} → {STATES[step + 1]}"


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
        text(x, axes.y(energy) - 6, f"{energy:.2f}", "value", anchor="middle")
        for x, energy in zip(places, energies, strict=True)
    )
