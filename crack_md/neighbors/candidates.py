"""Candidates for neighbors: more pairs than the rule asks for, and the choice."""

from collections.abc import Sequence
from typing import NamedTuple

import ase
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crack_md.neighbors.search import (
    GROWTH,
    MARGIN,
    RESOLUTION,
    STEPS_PER_A,
    WIDTH_STEP,
    SearchRule,
    SmoothNeighbors,
    StrictNeighbors,
    bucket_of_width,
    first_radius,
    last_step,
    lengths,
    lexicographic,
    pair_lengths,
    pairs_on_device,
    pairs_within,
    should_search_on,
)

LARGEST_KEY = 2**63
"""What one integer can count."""


class Candidates(NamedTuple):
    """A table of pairs in which every row is ordered by (sender, shift).

    The last slot of every row is empty.
    """

    sender: Int[Tensor, "atom candidate"]
    """An empty slot points at its own receiver."""
    shift: Float[Tensor, "3 atom candidate"]
    """Whole lattice translations of the sender, in float64."""
    filled: Bool[Tensor, "atom candidate"]
    radius: Float[Tensor, " atom"]
    """An atom's row held all pairs closer than this when it was made, in Å."""
    farthest: float
    """The largest of these radii."""
    closest: float
    """Shortest distance of all candidates, in Å; infinite where there are none."""


class _Found(NamedTuple):
    receiver: Int[Tensor, " pair"]
    sender: Int[Tensor, " pair"]
    shift: Int[Tensor, "pair 3"]
    distance: Float[Tensor, " pair"]

    def chosen(self, mask: Bool[Tensor, " pair"]) -> "_Found":
        index = mask.nonzero().squeeze(-1)
        return _Found(*(column.index_select(0, index) for column in self))


def find_candidates(
    atoms: ase.Atoms, rule: SearchRule, skin: float, device: torch.device
) -> Candidates:
    """Return candidates that stay enough until atoms have moved by half of `skin` (Å).

    With the smooth rule these are all pairs inside cutoff + skin. With the strict rule
    the radius is that of an atom's own last neighbor + skin, or cutoff + skin where it
    has fewer than the rule asks for.
    """
    if isinstance(rule, SmoothNeighbors):
        reach = rule.cutoff + skin
        found = _search(atoms, reach, device)
        found = found.chosen(found.distance < reach)
        radius = found.distance.new_full((len(atoms),), reach)
        width = WIDTH_STEP
    else:
        found, radius = _around_nearest(atoms, rule, skin, device)
        width = rule.count
    farthest = float(radius.max())
    closest = float(found.distance.min()) if len(found.distance) else float("inf")
    table = _dense(found, atoms, farthest, width)
    return Candidates(*table, radius, farthest, closest)


def join_candidates(tables: Sequence[Candidates]) -> Candidates:
    """Return one table of the atoms of several structures, one after the other."""
    width = max(table.sender.shape[1] for table in tables)
    first = 0
    parts = []
    for table in tables:
        n_atoms, missing = table.sender.shape[0], width - table.sender.shape[1]
        own = torch.arange(n_atoms, device=table.sender.device).unsqueeze(1)
        sender = torch.cat([table.sender, own.expand(-1, missing)], dim=1) + first
        shift, filled = (
            torch.nn.functional.pad(values, (0, missing))
            for values in (table.shift, table.filled)
        )
        parts.append((sender, shift, filled, table.radius))
        first += n_atoms
    senders, shifts, filleds, radii = zip(*parts, strict=True)
    return Candidates(
        torch.cat(senders),
        torch.cat(shifts, dim=1),
        torch.cat(filleds),
        torch.cat(radii),
        max(table.farthest for table in tables),
        min(table.closest for table in tables),
    )


def _around_nearest(
    atoms: ase.Atoms, rule: StrictNeighbors, skin: float, device: torch.device
) -> tuple[_Found, Float[Tensor, " atom"]]:
    """Return candidates for the nearest neighbors and the radius of every atom."""
    parts = []
    n_atoms = len(atoms)
    unsettled = torch.ones(n_atoms, dtype=torch.bool, device=device)
    radius = torch.zeros(n_atoms, dtype=torch.float64, device=device)
    inner = min(first_radius(atoms, rule.count), rule.cutoff)
    while True:
        found = _search(atoms, inner + skin, device)
        found = found.chosen(unsettled[found.receiver])
        last = _distance_of_last(found, n_atoms, rule.count)
        settled = unsettled & ((last <= inner) | (inner >= rule.cutoff))
        reach = last.clamp(max=rule.cutoff + RESOLUTION) + skin
        radius = torch.where(settled, reach, radius)
        inside = found.distance < reach[found.receiver]
        parts.append(found.chosen(settled[found.receiver] & inside))
        unsettled &= ~settled
        if not unsettled.any():
            columns = zip(*parts, strict=True)
            return _Found(*(torch.cat(column) for column in columns)), radius
        inner = min(inner * GROWTH, rule.cutoff)


def _distance_of_last(
    found: _Found, n_atoms: int, count: int
) -> Float[Tensor, " atom"]:
    """Return every atom's distance (Å) to its neighbor number `count`, or infinity."""
    steps = (found.distance * STEPS_PER_A).round().long() + 1  # no less than it is
    span = int(steps.max()) + 1 if len(steps) else 1
    ordered = (found.receiver * span + steps).sort().values
    per_atom = torch.bincount(found.receiver, minlength=n_atoms)
    place = per_atom.cumsum(0) - per_atom + count - 1
    last = found.distance.new_full((n_atoms,), torch.inf)
    enough = per_atom >= count
    last[enough] = (ordered[place[enough]] % span).double() / STEPS_PER_A
    return last


def _search(atoms: ase.Atoms, radius: float, device: torch.device) -> _Found:
    """Return all pairs closer than `radius` (Å), and perhaps a few more."""
    radius += MARGIN
    if should_search_on(device, len(atoms)):
        found = pairs_on_device(atoms, radius, device)
    else:
        receiver, sender, shift = map(torch.from_numpy, pairs_within(atoms, radius))
        found = receiver.to(device), sender.to(device), shift.to(device)
    axes = torch.from_numpy(atoms.positions.T.copy()).to(device)
    return _Found(*found, pair_lengths(axes, atoms.cell.array, *found))


def _dense(
    found: _Found, atoms: ase.Atoms, farthest: float, width: int
) -> tuple[
    Int[Tensor, "atom candidate"],
    Float[Tensor, "3 atom candidate"],
    Bool[Tensor, "atom candidate"],
]:
    """Return sender, shift and filled slots, every row ordered by (sender, shift)."""
    n_atoms, device = len(atoms), found.receiver.device
    order = _order(found, atoms, farthest)
    receiver = found.receiver.index_select(0, order)
    per_atom = torch.bincount(receiver, minlength=n_atoms)
    width = max(width, int(per_atom.max())) + 1
    width += -width % WIDTH_STEP
    first = per_atom.cumsum(0) - per_atom
    slot = torch.arange(len(receiver), device=device) - first.index_select(0, receiver)
    place = receiver * width + slot
    senders = torch.arange(n_atoms, device=device).repeat_interleave(width)
    senders.index_copy_(0, place, found.sender.index_select(0, order))
    shifts = torch.zeros(3, len(senders), dtype=torch.float64, device=device)
    shifts.index_copy_(1, place, found.shift.index_select(0, order).T.double())
    filled = torch.zeros_like(senders, dtype=torch.bool).index_fill_(0, place, value=1)
    shape = n_atoms, width
    return senders.view(shape), shifts.view(3, *shape), filled.view(shape)


def _order(found: _Found, atoms: ase.Atoms, farthest: float) -> Int[Tensor, " pair"]:
    """Return the order by (receiver, sender, shift).

    Shifts between wrapped atoms order the images of a sender as the real ones do, and
    are small however far atoms have wandered: nearly always everything fits into one
    number.
    """
    inverse = np.zeros((3, 3))
    inverse[:, atoms.pbc] = np.linalg.pinv(atoms.cell.array[atoms.pbc])
    heights = 1 / np.linalg.norm(inverse[:, atoms.pbc], axis=0)
    most = np.zeros(3, dtype=int)
    most[atoms.pbc] = np.ceil(farthest / heights) + 2
    home = np.floor(atoms.positions @ inverse).astype(np.int64).T
    if float(len(atoms)) ** 2 * np.prod(2.0 * most + 1) >= LARGEST_KEY:
        columns = (found.receiver, found.sender, *found.shift.T)
        order = lexicographic([column.cpu().numpy() for column in columns])
        return torch.from_numpy(order).to(found.receiver.device)
    key = found.receiver * len(atoms) + found.sender
    for axis, limit in enumerate(most.tolist()):
        key *= 2 * limit + 1
        key += found.shift[:, axis] + limit
        if home[axis].any():
            jump = torch.from_numpy(home[axis].copy()).to(key.device)
            key += jump.index_select(0, found.sender)
            key -= jump.index_select(0, found.receiver)
    return key.argsort()


class SelectedNeighbors(NamedTuple):
    """The columns of a table, and what proves that nothing is missing in it."""

    neighbors: Int[Tensor, "atom slot"]
    cell_shift: Float[Tensor, "atom slot 3"]
    mask: Bool[Tensor, "atom slot"]
    first: Int[Tensor, " atom"]
    """Distance of every atom's nearest neighbor in steps of `RESOLUTION`."""
    last: Int[Tensor, " atom"]
    """Of its last slot; beyond the cutoff where that is empty."""
    n_edges: int | None
    """How many slots hold a neighbor, where it was read from the device."""


class Selector:
    """Applies a rule to one list of candidates, as often as atoms move.

    Candidates are in the order that breaks ties, so distance and place together are one
    number whose order is that of the table.

    Args:
        rule: which candidates are neighbors.
        candidates: pairs of which none that the rule asks for is missing.
        dtype: of the shifts in the table.
    """

    def __init__(
        self, rule: SearchRule, candidates: Candidates, dtype: torch.dtype
    ) -> None:
        self.rule, self.dtype = rule, dtype
        self._sender = candidates.sender.flatten()
        self._shift = candidates.shift.reshape(3, -1).T.to(dtype).contiguous()
        self._beyond = last_step(rule.cutoff) + 1
        n_atoms, width = candidates.sender.shape
        device = candidates.sender.device
        self._bits = (width - 1).bit_length()
        fits = (self._beyond + 1) << self._bits <= torch.iinfo(torch.int32).max
        kind = torch.int32 if fits else torch.int64
        self._place = torch.arange(width, dtype=kind, device=device)
        self._empty = width - 1
        self._first = width * torch.arange(n_atoms, device=device).unsqueeze(1)

    @property
    def beyond(self) -> int:
        """Return the first distance outside the cutoff, in steps of `RESOLUTION`."""
        return self._beyond

    def __call__(
        self,
        axes: Float[Tensor, "3 atom"],
        move: Float[Tensor, "3 atom candidate"],
        *,
        width: int | None = None,
    ) -> SelectedNeighbors:
        """Return the table of atoms at the positions of now.

        Args:
            axes: x, y and z of every atom in Å.
            move: translation of every candidate in Å, infinite in empty slots.
            width: of a smooth table; None takes what the widest row needs, which has
                to be read from the device. Rows that a given width cuts are full:
                ``last`` is inside the cutoff there.
        """
        keys = self._ordered_keys(axes, move)
        occupied = keys < (self._beyond << self._bits)
        n_edges = None
        if isinstance(self.rule, StrictNeighbors):
            width = self.rule.count
        elif width is None:
            per_atom = occupied.sum(dim=1)
            widest, n_edges = torch.stack([per_atom.max(), per_atom.sum()]).tolist()
            width = bucket_of_width(widest)
        keys, mask = keys[:, :width], occupied[:, :width].contiguous()
        place = (keys & ((1 << self._bits) - 1)).masked_fill_(~mask, self._empty)
        chosen = (place + self._first).flatten()
        return SelectedNeighbors(
            self._sender.index_select(0, chosen).view(mask.shape),
            self._shift.index_select(0, chosen).view(*mask.shape, 3),
            mask,
            keys[:, 0] >> self._bits,
            keys[:, -1] >> self._bits,
            n_edges,
        )

    def _ordered_keys(
        self, axes: Float[Tensor, "3 atom"], move: Float[Tensor, "3 atom candidate"]
    ) -> Int[Tensor, "atom candidate"]:
        distance = lengths(axes, axes.unsqueeze(-1), self._sender, move)
        steps = (distance * STEPS_PER_A).round_()
        if not isinstance(self.rule, StrictNeighbors):
            steps.masked_fill_(distance >= self.rule.cutoff, self._beyond)
        keys = steps.clamp_(max=self._beyond).to(self._place.dtype)
        keys.bitwise_left_shift_(self._bits).bitwise_or_(self._place)
        return _sorted_rows(keys)


def _sorted_rows(keys: Int[Tensor, "atom candidate"]) -> Int[Tensor, "atom candidate"]:
    """Return the keys, which may be sorted in place, in ascending rows."""
    if keys.device.type == "cpu":
        keys.numpy().sort(axis=1)  # vectorised: 20 times faster than torch here
        return keys
    return keys.sort(dim=1).values
