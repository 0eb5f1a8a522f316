"""Atomic layers: which atoms lie at the same height above the bottom of a slab."""

import numpy as np
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
