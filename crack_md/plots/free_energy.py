"""Free-energy diagrams of the oxygen reduction reaction."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crack_md.plots.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    RED,
    png,
    style,
)
from crack_md.workflows.orr.diagram import (
    EQUILIBRIUM_V,
    STATES,
    FreeEnergyDiagram,
)

COLORS = (INK, BLUE, ORANGE, GREEN, RED)
LABELS = ("O₂ + 4(H⁺+e⁻)", "OOH*", "O*", "OH*", "2 H₂O")
HALF_WIDTH = 0.3
WIDTH_IN, HEIGHT_IN = 3.6, 4.2


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
    size = (0.6 + WIDTH_IN * len(potentials_V), HEIGHT_IN)
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
