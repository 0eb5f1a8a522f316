"""Whether an optimizer still gets anywhere, and where it had got best."""

import numpy as np
from ase import Atoms

FORCE_FALL = 0.95
"""What counts as progress: the smallest force so far shrinks by 5 %,"""
ENERGY_FALL_EV = 1e-3
"""or the lowest energy so far sinks by a millielectronvolt."""


class StallWatch:
    """Remembers the frame of lowest energy, and for how long nothing got better.

    Quasi-Newton steps can circle for hundreds of steps on a saddle, such as an atom
    exactly on top of another, whose curvature is negative; FIRE goes downhill there.

    Args:
        patience: steps without progress in force and energy that make a stall; None
            never sees one.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self._positions: np.ndarray | None = None
        self._cell: np.ndarray | None = None
        self._lowest = np.inf
        self._energy_mark = np.inf
        self._force_mark = np.inf
        self._waited = 0

    def sees_stall(self, moving: Atoms, energy: float, largest_force: float) -> bool:
        """Return whether nothing got better for so long, this frame included.

        Args:
            moving: where the optimizer is.
            energy: eV, with the work against a pressure.
            largest_force: eV/Å, on a free atom.
        """
        if self.patience is None:
            return False
        if energy < self._lowest:
            self._lowest = energy
            self._positions = moving.positions.copy()
            self._cell = moving.cell.array.copy()
        better = largest_force < FORCE_FALL * self._force_mark
        better |= energy < self._energy_mark - ENERGY_FALL_EV
        if better:
            self._force_mark = min(self._force_mark, largest_force)
            self._energy_mark = min(self._energy_mark, energy)
        self._waited = 0 if better else self._waited + 1
        return self._waited >= self.patience

    def go_back(self, moving: Atoms) -> None:
        """Put the atoms, in place, where the energy was lowest."""
        if self._positions is not None and self._cell is not None:
            moving.set_cell(self._cell)
            # no constraint may correct what was there already
            moving.set_positions(self._positions, apply_constraint=False)
