"""Figures of an adsorbate's path: over the surface, over sites in time, its MSD."""

from itertools import product

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from crack_md.plots.style import BLUE, GRID, INK, MUTED, ORANGE, png, style
from crack_md.workflows.md.residence import FIT_FROM, FIT_TO, Diffusion, Residence, Stay

WIDTH_IN, HEIGHT_IN = 9.6, 5.0
ATOM_SCALE = 0.92
"""Drawn a little smaller than covalent radii, so that hollows stay open."""
MARGIN_A = 2.2
LAYER_A = 1.2
LAYERS = 2


def residence_png(
    slab: Atoms,
    path: Float[np.ndarray, "frame 2"],
    residence: Residence,
    diffusion: Diffusion,
    *,
    title: str = "",
) -> bytes:
    """Return path, sites in time and square displacement as a PNG image.

    Args:
        slab: without the adsorbate.
        path: of the adsorbate over the surface in Å, unwrapped.
        residence: of the same trajectory.
        diffusion: fitted to it.
        title: over the figure.
    """
    with style():
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=[1.1, 1])
        duration = (len(path) - 1) * residence.time_per_frame_fs / 1000.0
        draw_path_over_slab(figure.add_subplot(grid[:, 0]), slab, path, duration)
        draw_timeline(figure.add_subplot(grid[0, 1]), residence)
        draw_displacement(
            figure.add_subplot(grid[1, 1]), diffusion, n_hops=len(residence.hops)
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        return png(figure)


def draw_path_over_slab(
    axes: Axes, slab: Atoms, path: Float[np.ndarray, "frame 2"], duration_ps: float
) -> None:
    """Draw the surface from above and the path on it, from dark to bright in time."""
    low, high = path.min(axis=0) - MARGIN_A, path.max(axis=0) + MARGIN_A
    depth = slab.positions[:, 2].max() - slab.positions[:, 2]
    cell = slab.cell.array[:2, :2]
    reach = np.ceil(np.abs(np.array([low, high]) @ np.linalg.inv(cell))).max() + 2
    images = list(product(range(-int(reach), int(reach) + 1), repeat=2))
    on_top = {str(slab.symbols[i]) for i in np.flatnonzero(depth < LAYER_A)}
    for index in np.argsort(-depth):
        layer = int(depth[index] // LAYER_A)
        if layer >= 2 * LAYERS:
            continue
        number, name = slab.numbers[index], str(slab.symbols[index])
        color = 1 - (1 - jmol_colors[number]) * (0.4**layer)
        for image in images:
            center = slab.positions[index, :2] + np.array(image) @ cell
            if (center < low - 2).any() or (center > high + 2).any():
                continue
            radius = ATOM_SCALE * float(covalent_radii[number])
            axes.add_patch(Circle(tuple(center), radius, fc=color, ec="white", lw=1.0))
            inside = (center > low + 0.4).all() and (center < high - 0.4).all()
            # beneath the top layer only what is not in it is named
            if inside and (layer == 0 or name not in on_top):
                x, y = center
                axes.text(x, y, name, ha="center", va="center", fontsize=7.5)
    pieces = np.stack([path[:-1], path[1:]], axis=1)
    lines = LineCollection(list(pieces), cmap="viridis", linewidths=0.8, zorder=4)
    lines.set_array(np.linspace(0.0, duration_ps, len(pieces)))
    axes.add_collection(lines)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    inset = axes.inset_axes((0.15, -0.05, 0.7, 0.025))
    bar = axes.figure.colorbar(lines, cax=inset, orientation="horizontal")
    bar.set_label("time / ps")
    bar.outline.set_visible(False)


def draw_timeline(axes: Axes, residence: Residence) -> None:
    """Draw when each class of sites was occupied; rows say how much and how long."""
    stays = [stay for stay in residence.stays if stay.time_fs > 0]
    labels = np.array(["", *[place.label for place in residence.places]])
    occupied = labels[residence.occupied + 1]
    step = residence.time_per_frame_fs / 1000.0
    for row, stay in enumerate(reversed(stays)):
        color = ORANGE if stay.label.startswith("hcp") else BLUE
        inside = np.concatenate([[False], occupied == stay.label, [False]])
        edges = np.flatnonzero(inside[1:] != inside[:-1]).reshape(-1, 2)
        spans = [(a * step, (b - a) * step) for a, b in edges]
        axes.broken_barh(spans, (row - 0.32, 0.64), color=color, linewidth=0)
        axes.annotate(
            _caption(stay),
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            color=INK,
        )
    names = [stay.name for stay in reversed(stays)]
    axes.set_yticks(range(len(stays)), names)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, len(occupied) * step), xlabel="time / ps")
    axes.set_ylim(-0.7, max(len(stays), 3) - 0.3)
    axes.set_title(f"{len(residence.hops)} hops", loc="left")
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _caption(stay: Stay) -> str:
    share = f"{100 * stay.share:.0f} %"
    if stay.mean_residence_fs is None or stay.residence_error_fs is None:
        return f"{share}, never left"
    mean, error = stay.mean_residence_fs / 1000, stay.residence_error_fs / 1000
    return f"{share}, {mean:.2f} ± {error:.2f} ps a stay"


def draw_displacement(axes: Axes, diffusion: Diffusion, *, n_hops: int) -> None:
    """Draw the mean square displacement and the line that D was taken from.

    Without a hop there is swinging only, and a fitted line means nothing.
    """
    lag = diffusion.lag_fs / 1000.0
    axes.plot(lag, diffusion.msd_A2, "o", color=BLUE, markersize=4)
    axes.set(xlabel="time / ps", ylabel="displacement² / Å²")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.grid(color=GRID, linewidth=0.7)
    if n_hops == 0:
        axes.set_title("no hop, no diffusion", loc="left")
        return
    fitted = lag >= FIT_FROM / FIT_TO * lag[-1]
    line = np.polyfit(lag[fitted], diffusion.msd_A2[fitted], 1)
    axes.plot(lag[fitted], np.polyval(line, lag[fitted]), color=MUTED, linewidth=1.2)
    value, error = diffusion.coefficient_cm2_per_s, diffusion.error_cm2_per_s
    axes.set_title(
        f"D = ({1e5 * value:.1f} ± {1e5 * error:.1f}) · 10⁻⁵ cm²/s", loc="left"
    )
