"""Pictures of relaxed structures, from above and from the side, as PNG."""

import base64
import io
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms
from ase.data.colors import jmol_colors
from ase.visualize.plot import plot_atoms
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from crack_md.plots.screening.markup import Markup, join, tag

PIXELS, DPI = 400, 144
VIEWS = {"top": ("", 2), "side": ("-90x", 1)}
"""ASE's rotation and the axis along which one looks."""
MARGIN_A = 2.0
SMALL_CELL = 120
"""Atoms up to which periodic copies are drawn around the cell."""
PALE = 0.6
"""How much of its color the farthest atom loses."""


def draw_structure(atoms: Atoms, name: str) -> Markup:
    """Return both views of a relaxed slab with its adsorbate."""
    return join(
        tag(
            "figure",
            tag("img", src=data_uri(picture(atoms, view)), alt=f"{name}, {view} view"),
            tag("figcaption", view),
        )
        for view in VIEWS
    )


def picture(atoms: Atoms, view: str) -> bytes:
    """Return one view as a PNG file without a time stamp."""
    rotation, axis = VIEWS[view]
    home = _below_its_cell(atoms)
    window = _window(home, axis)
    shown = _with_copies(home, window)
    figure = Figure(figsize=(PIXELS / DPI, PIXELS / DPI), dpi=DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    plot_atoms(
        shown,
        axes,
        rotation=rotation,
        radii=0.9,
        colors=_colors(shown, axis),
        show_unit_cell=1 if view == "top" else 0,
    )
    _look_at(axes, shown, window)
    axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, transparent=True)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """Return a picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@dataclass(frozen=True)
class _Window:
    """A square of the drawing plane."""

    across: int
    """Coordinate that runs to the right."""
    up: int
    middle: NDArray[np.float64]
    half_A: float

    def near(self, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which positions are in it, or close enough to reach into it."""
        apart = np.abs(positions - self.middle)[:, [self.across, self.up]]
        return np.asarray((apart < self.half_A + MARGIN_A).all(axis=1))


def _below_its_cell(atoms: Atoms) -> Atoms:
    """Return a slab below the plane of its lateral cell.

    ASE draws the cell too: flat, and in front of the atoms when seen from above.
    """
    home = atoms.copy()
    home.set_constraint()
    home.wrap(eps=1e-3, pbc=(True, True, False))
    home.positions[:, 2] -= home.positions[:, 2].max() + MARGIN_A
    cell = home.cell.array.copy()
    cell[2] = (0.0, 0.0, 1e-3)
    home.set_cell(cell)
    return home


def _window(home: Atoms, axis: int) -> _Window:
    """Return the square that the cell fills."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ home.cell.array[:2]
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle = (low + high) / 2
    half = max(float(np.max((high - low)[:2])) / 2 + MARGIN_A / 2, 4.0)
    if axis == 2:
        return _Window(0, 1, middle, half)
    heights = home.positions[:, 2]
    middle[2] = (heights.min() + heights.max()) / 2
    return _Window(0, 2, middle, max(half, float(np.ptp(heights)) / 2 + MARGIN_A))


def _with_copies(home: Atoms, window: _Window) -> Atoms:
    """Return a slab with those of its lateral images that reach into the window."""
    shown = home.copy()
    if len(home) > SMALL_CELL:
        return shown
    first, second = home.cell.array[:2]
    area = np.linalg.norm(np.cross(first, second))
    # as many as fit into the window between opposite edges of the cell
    reach = [
        int(np.ceil((window.half_A + MARGIN_A) * np.linalg.norm(edge) / area))
        for edge in (second, first)
    ]
    for m, n in product(*(range(-count, count + 1) for count in reach)):
        image = home.copy()
        image.translate(m * first + n * second)
        near = window.near(image.positions)
        if (m or n) and near.any():
            shown += image[near]
    return shown


def _look_at(axes: Axes, shown: Atoms, window: _Window) -> None:
    """Set the limits to a window, whatever origin ASE has drawn from."""
    plane = [window.across, window.up]
    drawn = np.array([p.center for p in axes.patches if isinstance(p, Circle)])
    origin = drawn.min(axis=0) - shown.positions[:, plane].min(axis=0)
    x, y = origin + window.middle[plane]
    axes.set_xlim(x - window.half_A, x + window.half_A)
    axes.set_ylim(y - window.half_A, y + window.half_A)


def _colors(atoms: Atoms, axis: int) -> NDArray[np.float64]:
    """Return the usual colors of elements, paler the farther away an atom is."""
    colors = np.asarray(jmol_colors[atoms.numbers], dtype=float)
    # seen from above one looks down z, from the side along y
    away = -atoms.positions[:, 2] if axis == 2 else atoms.positions[:, 1]
    away = (away - away.min()) / max(float(np.ptp(away)), 1e-9)
    share = PALE * away[:, None]
    return colors * (1 - share) + share
