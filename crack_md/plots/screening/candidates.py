"""Cards of the best slabs: pictures, numbers, and the free-energy diagram."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms
from ase.data.colors import jmol_colors
from ase.visualize.plot import plot_atoms
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from crack_md.plots.screening.view import ReportView, SlabView, signed
from crack_md.plots.style import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    POINTS_PER_INCH,
    RED,
    as_markup,
    as_svg,
    style,
)
from crack_md.workflows.orr import INTERMEDIATES
from crack_md.workflows.screening.reader import Structures

STATES = ("O₂", "OOH*", "O*", "OH*", "H₂O")
ELECTRONS_LEFT = np.arange(4, -1, -1)
DIAGRAM_IN = (5.4, 3.0)
HALF_WIDTH = 0.25


def draw_diagram(slab: SlabView) -> Figure:
    """Return the four steps at U = 0 and at the limiting potential.

    Names of states that were inferred by scaling are pale.
    """
    still = levels(slab, 0.0)
    potential = -float(np.diff(still).max())
    driven = levels(slab, potential)
    with style():
        figure = Figure(figsize=DIAGRAM_IN, dpi=POINTS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        axes.set(
            xlim=(-0.5, 4.5),
            ylim=(
                min(-0.35, *(level - 0.35 for level in (*driven, *still))),
                max(5.5, *(level + 0.5 for level in (*driven, *still))),
            ),
            ylabel="ΔG / eV",
        )
        axes.set_xticks(range(5), STATES)
        known = {f"{name}*" for name in slab.free_energies} | {STATES[0], STATES[-1]}
        for name, label in zip(STATES, axes.get_xticklabels(), strict=True):
            label.set_color(INK if name in known else FAINT)
        axes.tick_params(axis="x", length=0)
        _staircase(axes, still, MUTED, "still", label="U = 0")
        named = f"U = {signed(potential, 2)} V"
        _staircase(axes, driven, BLUE, "driven", label=named)
        step = slab.limiting_step
        ends = [step + HALF_WIDTH, step + 1 - HALF_WIDTH]
        axes.plot(ends, driven[step : step + 2], color=RED, gid="limiting")
        for place, level in enumerate(still):
            axes.text(place, level + 0.12, signed(level, 2), ha="center", color=MUTED)
        legend = axes.legend(loc="upper right", handlelength=0, handletextpad=0)
        for key, color in zip(legend.get_texts(), (MUTED, BLUE), strict=True):
            key.set_color(color)
    return figure


def _staircase(
    axes: Axes, energies: Sequence[float], color: str, gid: str, *, label: str
) -> None:
    """Draw levels, joined by thin dotted lines."""
    places = np.arange(len(energies))
    lines = axes.hlines(energies, places - HALF_WIDTH, places + HALF_WIDTH, color=color)
    lines.set(linewidth=2.6, gid=gid, label=label)
    for place in places[:-1]:
        ends = [place + HALF_WIDTH, place + 1 - HALF_WIDTH]
        axes.plot(ends, energies[place : place + 2], ":", color=color, linewidth=1.1)


def diagram_svg(slab: SlabView) -> Markup:
    """Return the diagram of a slab for its card."""
    told = ", ".join(
        f"{s} {v:.2f}" for s, v in zip(STATES, levels(slab, 0.0), strict=True)
    )
    drawing = as_svg(
        draw_diagram(slab),
        name=f"diagram-{slab.index}",
        label=f"Free energies in eV at U = 0: {told}",
    )
    drawing.set("class", "chart diagram")
    return as_markup(drawing)


def levels(slab: SlabView, potential_V: float) -> list[float]:
    """Return the levels of `STATES` in eV: ΔG - n·eU with n electrons to come."""
    return [float(e) for e in np.array(slab.levels) - ELECTRONS_LEFT * potential_V]


def limiting_step(slab: SlabView) -> str:
    """Return the step that limits the potential, as ``OH* → H₂O``."""
    return f"{STATES[slab.limiting_step]} → {STATES[slab.limiting_step + 1]}"


PIXELS, DPI = 400, 144
VIEWS = {"top": ("", 2), "side": ("-90x", 1)}
"""ASE's rotation and the axis along which one looks."""
MARGIN_A = 2.0
SMALL_CELL = 120
"""Atoms up to which periodic copies are drawn around the cell."""
PALE = 0.6
"""How much of its color the farthest atom loses."""


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


SHOWN = 6


@dataclass(frozen=True)
class Card:
    """What the card of a slab shows."""

    slab: SlabView
    facts: str
    pictures: dict[str, str]
    """Addresses that hold them, by view; empty where there is no structure."""
    diagram: Markup

    @property
    def is_inferred(self) -> bool:
        """Return whether some free energies are by scaling."""
        return len(self.slab.free_energies) < len(INTERMEDIATES)


def cards(view: ReportView) -> list[Card]:
    """Return the cards of the best slabs."""
    best = view.ranked[:SHOWN]
    structures = Structures.of(view.screening) if best else None
    made = []
    for slab in best:
        assert structures is not None
        candidate = view.candidates[slab.name]
        atoms = structures.adsorbed(candidate, candidate.adsorbed[0])
        pictures = (
            {} if atoms is None else {v: data_uri(picture(atoms, v)) for v in VIEWS}
        )
        diagram = diagram_svg(slab) if slab.free_energies else Markup()
        made.append(Card(slab, _facts(slab), pictures, diagram))
    return made


def _facts(slab: SlabView) -> str:
    """Return sites, free energies and the limiting step in one line."""
    facts = []
    for name, energy in slab.energies.items():
        half = "" if energy.half_width is None else f" ± {energy.half_width:.2f}"
        kind, value = (
            ("ΔE", energy.dE_eV) if energy.dG_eV is None else ("ΔG", energy.dG_eV)
        )
        facts.append(f"{name}* on {energy.site}, {kind} {signed(value, 2)}{half} eV")
    if slab.U_L_V is not None:
        facts.append(f"U_L {signed(slab.U_L_V, 2)} V")
    if slab.free_energies:
        facts.append(f"limited by {limiting_step(slab)}")
    return " · ".join(facts)
