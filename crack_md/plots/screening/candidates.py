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
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from crack_md.plots.screening.markup import Axes, Markup, join, line, tag, text, ticks
from crack_md.plots.screening.view import ReportView, SlabView
from crack_md.workflows.orr import INTERMEDIATES
from crack_md.workflows.screening.reader import Structures

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


def _look_at(axes: Plot, shown: Atoms, window: _Window) -> None:
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


def draw_candidates(view: ReportView) -> Markup:
    """Return one card for each of the best slabs."""
    best = view.ranked[:SHOWN]
    if not best:
        return tag("p", "None: no slab has a result.")
    structures = Structures.of(view.screening)
    cards = [_card(slab, view, structures) for slab in best]
    lead = (
        "Grey: at U = 0. Blue: at the limiting potential; red is the step that limits."
    )
    if any(_inferred(slab) for slab in best):
        lead += " Pale names: by scaling, not computed."
    return join([tag("p", lead, class_="note"), tag("div", *cards, class_="cards")])


def _inferred(slab: SlabView) -> bool:
    return len(slab.free_energies) < len(INTERMEDIATES)


def _card(slab: SlabView, view: ReportView, structures: Structures) -> Markup:
    candidate = view.candidates[slab.name]
    atoms = structures.adsorbed(candidate, candidate.adsorbed[0])
    pictures = (
        tag("p", "No picture: results.db does not hold its structure.", class_="note")
        if atoms is None
        else tag("div", draw_structure(atoms, slab.name), class_="pictures")
    )
    diagram = [draw_diagram(slab)] if slab.free_energies else []
    title = tag("h3", tag("span", f"{slab.rank}", class_="rank"), " ", slab.name)
    facts = tag("p", _facts(slab), class_="note")
    return tag("article", title, facts, pictures, *diagram, class_="card")


def _facts(slab: SlabView) -> str:
    """Return sites, free energies and the limiting step in one line."""
    facts = []
    for name, energy in slab.energies.items():
        half = "" if energy.half_width is None else f" ± {energy.half_width:.2f}"
        kind, value = (
            ("ΔE", energy.dE_eV) if energy.dG_eV is None else ("ΔG", energy.dG_eV)
        )
        shown = f"{value:.2f}".replace("-", "−")
        facts.append(f"{name}* on {energy.site}, {kind} {shown}{half} eV")
    if slab.U_L_V is not None:
        facts.append(f"U_L {slab.U_L_V:.2f} V".replace("-", "−"))
    if slab.free_energies:
        facts.append(f"limited by {limiting_step(slab)}")
    return " · ".join(facts)
