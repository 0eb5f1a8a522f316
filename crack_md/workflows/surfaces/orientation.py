"""Layers of a slab, and turning it upright: which side is up, what is held.

Up is +z of the file. Where the constraints or OC20's tags say that the lower side is
the free one, the slab is turned over, and a warning says so.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixedLine,
    FixedPlane,
    FixScaled,
    Hookean,
)
from numpy.typing import NDArray

LAYER_GAP_A = 0.4
"""Atoms closer than this along the normal share a layer; (211) layers are 0.7 apart."""
CHAIN_A = 2 * LAYER_GAP_A
"""What is thicker, without a gap, is several layers: those of (977) are 0.3 apart."""
ROUND_OFF_A = 0.02
CLEAR_RATIO = 2.0
"""Gaps between layers are so many times wider than those inside a layer."""


def layers(heights: NDArray[np.float64]) -> NDArray[np.int_]:
    """Return the layer of every atom, 0 at the bottom, from heights in Å.

    Layers are parted by 0.4 Å of nothing. Where atoms follow each other more closely
    through more than 0.8 Å, as on vicinal surfaces, the clearest step in the sizes of
    the gaps between atoms parts them; where there is none, slices of 0.4 Å do.
    """
    order = np.argsort(heights, kind="stable")
    ordered = np.asarray(heights)[order]
    parted = np.diff(ordered) > LAYER_GAP_A
    ends = np.append(np.flatnonzero(parted), len(ordered) - 1)
    starts = np.append(0, ends[:-1] + 1)
    if (ordered[ends] - ordered[starts]).max(initial=0.0) > CHAIN_A:
        parted = _part_clearly(ordered)
    layer = np.empty(len(heights), dtype=int)
    layer[order] = np.append(0, np.cumsum(parted))
    return layer


def crystal_planes(heights: NDArray[np.float64]) -> NDArray[np.int_]:
    """Return the plane of every atom of a crystal, 0 at the bottom, heights in Å.

    Planes may be nearer to each other than layers: those of hcp(10-11) are 0.34 Å
    apart and end the crystal in two ways.
    """
    order = np.argsort(heights, kind="stable")
    plane = np.empty(len(heights), dtype=int)
    plane[order] = np.append(0, np.cumsum(_part_clearly(np.asarray(heights)[order])))
    return plane


def _part_clearly(heights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return between which of these rising heights a layer ends."""
    gaps = np.diff(heights)
    sizes = np.maximum(np.sort(np.append(gaps, 0.0)), ROUND_OFF_A)
    ratios = sizes[1:] / sizes[:-1]
    widest = int(ratios.argmax()) if len(ratios) else 0
    if len(ratios) and ratios[widest] >= CLEAR_RATIO:
        return gaps > np.sqrt(sizes[widest] * sizes[widest + 1])
    slices = np.floor((heights - heights[:1]) / LAYER_GAP_A)
    return np.asarray((np.diff(slices) > 0) | (gaps > LAYER_GAP_A))


KEPT = (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixedLine,
    FixedPlane,
    FixScaled,
    Hookean,
)
"""What goes on to hold where an adsorbate is added to the atoms."""
TURN_WITH_SLAB = (FixAtoms, FixBondLengths, FixScaled)
LYING = 1e-3
"""A normal with a smaller z has no upper side by +z: its cell vector points up."""
TURN_DEG = 0.1
"""Smaller turns are the rounding of a file."""


class ConstraintError(ValueError):
    """A constraint that cannot be kept; the message says why."""


@dataclass(frozen=True)
class Upright:
    """A slab with its normal along +z, and what was done to it."""

    atoms: Atoms
    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def turn_upright(slab: Atoms, axis: int) -> Upright:
    """Return the slab with its vacuum along the third vector and its free side up.

    Args:
        slab: whole, free along one cell vector; it is not changed.
        axis: of that vector.

    Raises:
        ConstraintError: a constraint cannot be kept, or cannot be turned.
    """
    slab = slab.copy()
    _check_kinds(slab)
    order = [axis - 2, axis - 1, axis]
    cell = slab.cell.complete().array[order]
    normal = np.cross(cell[0], cell[1])
    normal /= np.linalg.norm(normal)
    along = normal[2] if abs(normal[2]) > LYING else normal @ cell[2]
    normal *= np.sign(along)
    reason = _turned_over(slab, slab.positions @ normal)
    up = -normal if reason else normal
    # A cell vector may point either way: the atoms stay where they are.
    cell[2] *= np.sign(cell[2] @ up)
    if np.linalg.det(cell) < 0:
        cell[[0, 1]], order = cell[[1, 0]], [order[1], order[0], order[2]]
    slab.set_cell(cell)
    slab.pbc = slab.pbc[order]
    _permute_masks(slab, order)
    tilt = float(np.degrees(np.arccos(np.clip(up[2], -1, 1))))
    if np.allclose(up, [0, 0, 1], atol=1e-8):
        return Upright(slab)
    if TURN_DEG < tilt < 180 - TURN_DEG:
        _check_turns(slab)
    if tilt > 180 - TURN_DEG:
        slab.rotate(180.0, "x", rotate_cell=True)
        up = up * [1, -1, -1]
    slab.rotate(up, "z", rotate_cell=True)
    if tilt <= TURN_DEG:
        return Upright(slab)
    side = f"the side that looks along {_words(up, tilt)} of the file is up"
    if reason:
        return Upright(slab, ("turned over",), (f"turned over, {side}: {reason}",))
    return Upright(slab, ("turned upright",), (f"turned upright: {side}",))


def _words(up: NDArray[np.float64], tilt_deg: float) -> str:
    if tilt_deg > 180 - TURN_DEG:
        return "-z"
    return "[" + " ".join(f"{component:.2f}" for component in up) + "]"


def _turned_over(slab: Atoms, heights: NDArray[np.float64]) -> str:
    """Return why the lower side is the free one; nothing where +z may be up."""
    layer = layers(heights)
    top, bottom = layer == layer.max(), layer == 0
    if layer.max() == 0:
        return ""
    held = np.isin(np.arange(len(slab)), sorted(held_atoms(slab)))
    if held[top].all() and not held[bottom].any():
        return "constraints hold the upper side"
    if held.any():
        return ""
    tags = slab.get_tags()
    if set(tags) == {0, 1} and not tags[top].any() and tags[bottom].all():
        return "tags call the lower side the surface"
    return ""


def held_atoms(slab: Atoms) -> set[int]:
    """Return the atoms that constraints, alone or together, hold in all directions."""
    held = np.zeros((len(slab), 3), dtype=bool)
    for constraint in slab.constraints:
        if isinstance(constraint, FixAtoms):
            held[constraint.get_indices()] = True
        elif isinstance(constraint, FixCartesian):
            held[constraint.get_indices()] |= np.asarray(constraint.mask)
        elif isinstance(constraint, FixScaled) and constraint.mask.all():
            held[constraint.get_indices()] = True
    return set(np.flatnonzero(held.all(axis=1)).tolist())


def partly_held_atoms(slab: Atoms) -> set[int]:
    """Return the atoms that constraints hold along some directions only."""
    touched: set[int] = set()
    for constraint in slab.constraints:
        touched |= {int(index) for index in constraint.get_indices()}
    return touched - held_atoms(slab)


def _check_kinds(slab: Atoms) -> None:
    for constraint in slab.constraints:
        if not isinstance(constraint, KEPT):
            kept = ", ".join(kind.__name__ for kind in KEPT)
            raise ConstraintError(
                f"{type(constraint).__name__} cannot be kept where an adsorbate is "
                f"added; expected {kept}; remove it from the file"
            )


def _check_turns(slab: Atoms) -> None:
    for constraint in slab.constraints:
        whole = isinstance(constraint, FixCartesian) and constraint.mask.all()
        if not (whole or isinstance(constraint, TURN_WITH_SLAB)):
            raise ConstraintError(
                f"the slab must be turned to point along z, and "
                f"{type(constraint).__name__} cannot be turned with it; turn it before "
                "screening"
            )


def _permute_masks(slab: Atoms, order: list[int]) -> None:
    """Let masks along cell vectors follow these, in place."""
    for constraint in slab.constraints:
        if isinstance(constraint, FixScaled):
            constraint.mask = np.asarray(constraint.mask)[order]
