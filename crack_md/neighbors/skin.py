"""Tables of neighbors for atoms that move little from one call to the next.

Candidates are found once and kept while it can be proved that none is missing; the rule
is applied to them anew in every call. Most proofs need the displacements alone, which
the host has, so a GPU is not waited for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import ase
import torch

from crack_md.errors import ConfigError
from crack_md.graph import AtomGraph
from crack_md.neighbors.candidates import Candidates
from crack_md.neighbors.checks import SHORTEST_DISTANCE, check_geometry
from crack_md.neighbors.motion import Motion
from crack_md.neighbors.rules import (
    RESOLUTION,
    STEPS_PER_A,
    NeighborRule,
    StrictNeighbors,
)
from crack_md.neighbors.selection import Selection
from crack_md.neighbors.table import build_graph
from crack_md.neighbors.verlet import VerletList, followed, new_list

THINNEST_SKIN = 1e-3
"""A list with less would hardly last for the positions it was made of, in Å."""
ROUND_OFF = 4 * RESOLUTION
"""What every proof leaves for rounded distances and ties, in Å."""


class NeighborSkin:
    """Answers as `build_graph` does, bit for bit, and keeps candidates between calls.

    Candidates are found anew when other atoms come, or when a neighbor might be missing
    because atoms moved too far against each other or the cell deformed too much. Atoms
    that were wrapped into the cell have not moved.

    Copies and pickles start without a list. Two threads must not call one object at a
    time.

    Args:
        rule: which pairs are neighbors.
        skin: how much farther than needed candidates are sought, in Å. Atoms may move
            by about half of that.
        dtype: of the edge vectors; positions and cell are float64.
        device: of the graphs.

    Raises:
        ConfigError: a skin that is negative or too thin to be of use.
    """

    def __init__(
        self,
        rule: NeighborRule,
        skin: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not THINNEST_SKIN <= skin < float("inf"):
            raise ConfigError(
                f"a skin of {skin} Å; expected 0 or {THINNEST_SKIN} Å and more"
            )
        self.rule = rule
        self.skin = float(skin)
        self.dtype = dtype
        self.device = torch.device(device)
        self.n_builds = 0
        """How often candidates were found anew."""
        self._list: VerletList | None = None

    def __call__(self, atoms: ase.Atoms) -> AtomGraph:
        """Return the graph of one structure.

        Raises:
            StructureError: as `build_graph`.
        """
        check_geometry(atoms)
        # a list outlives the inference mode of the call that made it
        with torch.inference_mode(mode=False):
            graph = self._graph_from_list(atoms)
            if graph is None:
                self._list = new_list(
                    atoms, self.rule, self.skin, dtype=self.dtype, device=self.device
                )
                self.n_builds += 1
                graph = self._graph_from_list(atoms)
                assert graph is not None, "no atom has moved"
            return graph

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the settings alone."""
        make = partial(NeighborSkin, dtype=self.dtype, device=self.device)
        return make, (self.rule, self.skin)

    def _graph_from_list(self, atoms: ase.Atoms) -> AtomGraph | None:
        """Return the graph, if the candidates are certain to be enough for it."""
        if self._list is None or not self._list.is_of(atoms):
            return None
        known, motion = followed(self._list, atoms)
        self._list = known
        certain = _is_certain(self.rule, self.skin, known.candidates, motion)
        strict = isinstance(self.rule, StrictNeighbors)
        if not certain and not (strict and motion.spread < self.skin):
            return None
        axes = torch.tensor(atoms.positions.T.copy(), device=self.device)
        table = known.selector(axes, known.move)
        if not certain and not _is_complete(known.candidates, motion, table):
            return None
        if not _are_apart(known.candidates, motion, table):
            build_graph(atoms, self.rule)  # raises, and names the atoms
        return AtomGraph(
            positions=axes.T.contiguous(),
            neighbors=table.neighbors,
            cell_shift=table.cell_shift,
            mask=table.mask,
            **known.constant,
        )


def graph_builder(
    rule: NeighborRule,
    skin: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Callable[[ase.Atoms], AtomGraph]:
    """Return what makes graphs of structures: `build_graph` itself if `skin` is 0."""
    if skin == 0:
        return partial(build_graph, rule=rule, dtype=dtype, device=device)
    return NeighborSkin(rule, skin, dtype=dtype, device=device)


def _is_certain(
    rule: NeighborRule, skin: float, candidates: Candidates, motion: Motion
) -> bool:
    """Return whether the motion alone proves that no neighbor is missing."""
    lost = motion.spread + (1 - motion.shrink) * candidates.farthest
    if isinstance(rule, StrictNeighbors):
        # the last neighbor may have moved away while others came closer
        lost += motion.spread + max(motion.stretch - 1, 0) * candidates.farthest
    return lost < skin - ROUND_OFF


def _is_complete(candidates: Candidates, motion: Motion, table: Selection) -> bool:
    """Return whether all that is not listed is farther than every last neighbor."""
    reach = motion.shrink * candidates.radius - motion.spread - ROUND_OFF
    return bool((table.last.double() / STEPS_PER_A < reach).all())


def _are_apart(candidates: Candidates, motion: Motion, table: Selection) -> bool:
    """Return whether no two atoms are on top of each other."""
    nearest = motion.shrink * candidates.closest - motion.spread
    if nearest > SHORTEST_DISTANCE + ROUND_OFF:
        return True
    return bool((table.first >= round(SHORTEST_DISTANCE * STEPS_PER_A)).all())
