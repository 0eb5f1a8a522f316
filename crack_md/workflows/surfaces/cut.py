"""Slabs cut from bulk crystals: Miller indices, terminations, thickness, width.

The lattice and the atoms are taken exactly as they are given, strain included: a bulk
should be relaxed by the model that will screen its surfaces.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from crack_md.structures import StructureEntry
from crack_md.workflows.surfaces.layers import crystal_planes
from crack_md.workflows.surfaces.planes import (
    Integers,
    Plane,
    cell_along,
    integer_indices,
    plane_normal,
)
from crack_md.workflows.surfaces.slab import (
    NONMETALS,
    SlabError,
    check_structure,
    vacuum_axes,
)
from crack_md.workflows.surfaces.symmetry import (
    kinds_of,
    operations,
    primitive_cell,
)

SYMMETRY_TOLERANCE_A = 0.01
SAME_PLACE = 0.02
"""Spacings of the plane: nearer layers are the same layer."""
MARGIN_A = 6.0
"""Piled up beyond what is needed: layers at the ends may be incomplete."""


@dataclass(frozen=True)
class CutSettings:
    """Which slabs to cut from every bulk."""

    planes: tuple[Plane, ...]
    all_terminations: bool = False
    thickness_A: float = 6.0
    """At least so much between the outermost nuclei: four (111) layers of Cu or Pt."""
    vacuum_A: float = 15.0
    width_A: float = 4.9
    """Both lateral vectors are at least so long: p(2x2) on (111) of Ni and larger."""


def cut_entries(
    entries: Sequence[StructureEntry], settings: CutSettings
) -> tuple[StructureEntry, ...]:
    """Return the slabs of all bulks; what cannot be cut becomes a row that says why."""
    found: list[StructureEntry] = []
    for entry in entries:
        base = entry.name.removesuffix("-1") if len(entries) == 1 else entry.name
        if entry.atoms is None:
            found.append(entry)
            continue
        for plane in settings.planes:
            name = f"{base}({plane.text})"
            try:
                slabs = tuple(_cut(entry.atoms, plane, settings))
            except SlabError as error:
                found.append(StructureEntry(name, None, str(error), error.status))
            except Exception as error:  # one odd bulk must not end the others
                text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                found.append(
                    StructureEntry(name, None, f"cannot be cut: {text}", "not_cut")
                )
            else:
                for slab in slabs:
                    notes = (*entry.notes, *slab.notes)
                    found.append(replace(slab, name=f"{name}{slab.name}", notes=notes))
    return tuple(found)


def _cut(bulk: Atoms, plane: Plane, settings: CutSettings) -> Iterator[StructureEntry]:
    """Yield the slabs of one plane, named by their termination where there are more."""
    check_structure(bulk)
    if not bulk.pbc.all() or vacuum_axes(bulk):
        raise SlabError(
            "not_a_bulk",
            "open along a cell vector: --miller cuts slabs from bulks; leave it out "
            "to screen slabs",
        )
    normal, axes = plane_normal(bulk.cell.array, plane)
    crystal = primitive_cell(_bare(bulk))
    indices = integer_indices(crystal.cell.array, normal)
    sides = _distinct_sides(crystal, indices, settings.thickness_A)
    # The densest top layer first, of these the farthest from the next: without
    # --terminations it is the one that is taken.
    sides.sort(key=lambda side: (-side.n_top, side.top, -round(side.gap_A, 3)))
    counts, seen = Counter(side.top for side in sides), Counter[str]()
    for side in sides:
        seen[side.top] += 1
        number = f" {seen[side.top]}" if counts[side.top] > 1 else ""
        shown = f" {side.top}-terminated{number}" if len(sides) > 1 else ""
        slab, size = _tile(_trim(side, settings.thickness_A), settings)
        notes = (
            f"cut from a bulk: Miller indices of {axes}; {settings.thickness_A:g} Å "
            f"thick, {size[0]}x{size[1]} cells",
        )
        if len(sides) > 1 and not settings.all_terminations:
            left_out = f"1 of {len(sides)} terminations, --terminations cuts all"
            yield StructureEntry(shown, slab, notes=(*notes, left_out))
            return
        yield StructureEntry(shown, slab, notes=notes)


def _bare(bulk: Atoms) -> Atoms:
    """Return what a bulk and its slabs share: no constraints, tags or motion."""
    bare = Atoms(bulk.numbers, bulk.positions, cell=bulk.cell, pbc=True)
    bare.set_initial_magnetic_moments(bulk.get_initial_magnetic_moments())
    if not bare.get_initial_magnetic_moments().any():
        del bare.arrays["initial_magmoms"]
    return bare


class _Side(NamedTuple):
    """One way to end a crystal: a pile of its layers along z, and which is on top."""

    pile: Atoms
    layer: NDArray[np.int_]
    period: int
    """Layers until the pile repeats."""
    last: int
    """The layer that is on top."""
    top: str
    """Formula of that layer."""
    n_top: int
    gap_A: float
    """Distance to the layer that was cut off."""
    place: float
    """Height of the top layer in the crystal, in spacings of the plane."""


def _distinct_sides(
    crystal: Atoms, indices: Integers, thickness_A: float
) -> list[_Side]:
    """Return the ends that no symmetry operation of the crystal maps on each other.

    An operation x → W x + w with h W = σ h takes the side that faces along s h, its top
    layer at the height y, to the side along σ s h, at y + σ s h·w.
    """
    rotations, translations = operations(
        crystal.cell.array,
        crystal.get_scaled_positions(),
        kinds_of(crystal),
        tolerance_A=SYMMETRY_TOLERANCE_A,
    )
    turned = indices @ rotations
    kept = [
        (sigma, float(translation @ indices))
        for sigma in (1, -1)
        for translation in translations[(turned == sigma * indices).all(axis=1)]
    ]
    known: list[tuple[int, float]] = []
    distinct = []
    for sign in (1, -1):
        for side in _sides(crystal, sign * indices, thickness_A):
            if any(
                s == sign and abs((y - side.place + 0.5) % 1.0 - 0.5) < SAME_PLACE
                for s, y in known
            ):
                continue
            distinct.append(side)
            known += [(o * sign, side.place + o * sign * shift) for o, shift in kept]
    return distinct


def _sides(crystal: Atoms, indices: Integers, thickness_A: float) -> Iterator[_Side]:
    """Yield every way to end the crystal within one period along a plane's normal."""
    pile, period_of, start = _pile(crystal, indices, thickness_A)
    layer = crystal_planes(pile.positions[:, 2])
    heights = np.bincount(layer, pile.positions[:, 2]) / np.bincount(layer)
    n_periods = int(period_of.max())
    first, following = (
        int(layer[period_of == n_periods - back].min()) for back in (2, 1)
    )
    for last in range(first, following):
        top = pile.symbols[layer == last].formula.reduce()[0].format("metal")
        yield _Side(
            pile,
            layer,
            following - first,
            last,
            str(top),
            int((layer == last).sum()),
            float(heights[last + 1] - heights[last]),
            float(heights[last] / pile.cell[2, 2] + start),
        )


def _pile(
    crystal: Atoms, indices: Integers, thickness_A: float
) -> tuple[Atoms, NDArray[np.int_], float]:
    """Return the crystal repeated along the normal of a plane, which is turned to z.

    Also the period of every atom, and where periods begin in the crystal: in the widest
    gap between its atoms.
    """
    rows = cell_along(indices)
    rows[0] *= int(np.sign(np.linalg.det(crystal.cell.array)))
    u, v, w = rows @ crystal.cell.array
    z = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    x = u / np.linalg.norm(u)
    axes = np.array([x, np.cross(z, x), z])
    scaled = np.linalg.solve(rows.T, crystal.get_scaled_positions(wrap=False).T).T
    heights = np.sort(scaled[:, 2] % 1.0)
    gaps = np.diff(np.append(heights, heights[0] + 1.0))
    start = heights[gaps.argmax()] + gaps.max() / 2
    scaled[:, 2] = (scaled[:, 2] - start) % 1.0
    n_periods = int(np.ceil((thickness_A + MARGIN_A) / float(w @ z))) + 3
    period_of = np.repeat(np.arange(n_periods), len(crystal))
    pile = crystal[np.tile(np.arange(len(crystal)), n_periods)]
    pile.set_cell(np.array([u, v, w]) @ axes.T)
    pile.positions = np.tile(scaled, (n_periods, 1)) @ pile.cell.array
    pile.positions += period_of[:, None] * pile.cell.array[2]
    return pile, period_of, float(start)


def _trim(side: _Side, thickness_A: float) -> Atoms:
    """Return the layers from the top down that the thickness needs, normal along z.

    Compounds keep whole periods: without a layer they would not be neutral.
    """
    pile, layer = side.pile, side.layer
    heights = np.bincount(layer, pile.positions[:, 2]) / np.bincount(layer)
    step = 1 if NONMETALS.isdisjoint(pile.symbols) else side.period
    lowest = side.last - step + 1
    while lowest > 0 and heights[side.last] - heights[lowest] < thickness_A - 1e-3:
        lowest -= step
    slab = pile[(layer >= lowest) & (layer <= side.last)]
    upright = slab.cell.array.copy()
    upright[2] = [0.0, 0.0, np.ptp(slab.positions[:, 2]) + MARGIN_A]
    slab.set_cell(upright)
    return slab


def _tile(slab: Atoms, settings: CutSettings) -> tuple[Atoms, tuple[int, int]]:
    """Return the slab in a compact, wide enough cell, and how many cells that took."""
    reduced, _ = minkowski_reduce(slab.cell, pbc=[True, True, False])
    slab.set_cell(reduced)
    slab.wrap(pbc=[True, True, False])
    lengths = np.linalg.norm(slab.cell.array[:2], axis=1)
    na, nb = (int(n) for n in np.ceil(settings.width_A / lengths - 1e-3))
    slab = slab.repeat((na, nb, 1))
    slab.center(vacuum=settings.vacuum_A / 2, axis=2)
    order = np.argsort(np.round(slab.positions[:, 2], 3), kind="stable")
    return slab[order], (na, nb)
