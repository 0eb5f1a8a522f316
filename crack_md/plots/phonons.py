"""Phonon bands beside their density of states, of one model or of several."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crack_md.plots.style import BLUE, GRID, INK, MUTED, ORANGE, RED, png, style
from crack_md.workflows.phonons.settings import IMAGINARY_THZ, Phonons, Segment

WIDTH_IN, HEIGHT_IN = 7.2, 3.9
LOOKS = ((BLUE, "-"), (ORANGE, (0, (3, 2))))
"""Dashed over solid: where two models agree, both are seen."""


def bands_png(models: Mapping[str, Phonons], *, title: str = "") -> bytes:
    """Return the bands and densities of one crystal as a PNG image.

    Args:
        models: what to call each set of phonons; the first sets the axis.
        title: over the figure.
    """
    with style():
        return png(draw_bands(models, title=title))


def draw_bands(models: Mapping[str, Phonons], *, title: str = "") -> Figure:
    """Return a figure of bands, with the density of states on the right."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[4.2, 1], sharey=True)
    draw_path(left, [phonons.segments for phonons in models.values()], list(models))
    for phonons, (color, dashes) in zip(models.values(), LOOKS, strict=False):
        density = phonons.density
        right.plot(
            density.states_per_THz,
            density.frequency_THz,
            color=color,
            linestyle=dashes,
            linewidth=1.1,
        )
        right.fill_betweenx(
            density.frequency_THz,
            density.states_per_THz,
            color=color,
            alpha=0.10,
            linewidth=0,
        )
    right.set(xlabel="states / THz", xlim=(0, None))
    right.tick_params(axis="y", length=0)
    right.axhline(0.0, color=MUTED, linewidth=0.8)
    left.set_ylabel("frequency / THz")
    left.set_title(title, loc="left")
    return figure


def draw_path(
    axes: Axes,
    paths: Sequence[Sequence[Segment]],
    names: Sequence[str],
    *,
    legend: bool = True,
) -> None:
    """Draw bands along one path; imaginary parts are negative and red."""
    reach = [segments[-1].distance[-1] for segments in paths]
    lowest = 0.0
    for segments, name, look, end in zip(paths, names, LOOKS, reach, strict=False):
        color, dashes = look
        scale = reach[0] / end  # lattice constants differ a little from model to model
        for segment in segments:
            x = segment.distance * scale
            for branch in segment.frequency_THz.T:
                axes.plot(x, branch, color=color, linestyle=dashes, linewidth=1.4)
                unstable = np.where(branch < IMAGINARY_THZ, branch, np.nan)
                axes.plot(x, unstable, color=RED, linewidth=1.6)
            lowest = min(lowest, float(segment.frequency_THz.min()))
        axes.plot([], [], color=color, linestyle=dashes, label=name)
    _mark_points(axes, paths[0])
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    bottom = 1.08 * lowest if lowest < IMAGINARY_THZ else 0.0
    axes.set(xlim=(0.0, reach[0]), ylim=(bottom, None))
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    if legend and len(names) > 1:
        axes.legend(loc="upper right", ncols=len(names), fontsize=8.5)
        axes.set_ylim(top=1.14 * axes.get_ylim()[1])
    if lowest < IMAGINARY_THZ:
        axes.text(
            0.01,
            0.02,
            "red: imaginary, the structure is unstable",
            transform=axes.transAxes,
            color=RED,
            fontsize=8.5,
        )


def _mark_points(axes: Axes, segments: Sequence[Segment]) -> None:
    """Name the high-symmetry points under the axis; ``U|K`` where the path jumps."""
    places = [float(segments[0].distance[0])]
    labels = [segments[0].labels[0]]
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        label = segment.labels[1]
        if following is not None and following.labels[0] != label:
            label = f"{label}|{following.labels[0]}"
        places.append(float(segment.distance[-1]))
        labels.append(label)
    for place in places[1:-1]:
        axes.axvline(place, color=GRID, linewidth=0.9, zorder=0)
    axes.set_xticks(places, labels, color=INK)
    axes.tick_params(axis="x", length=0)
