"""Every reason for which a frame is put aside, at its limit."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from crack_md.training.on_policy.config import DivergenceLimits
from crack_md.training.on_policy.dynamics import (
    category,
    count_pieces,
    why_forces_diverged,
    why_shape_diverged,
)

LIMITS = DivergenceLimits(
    largest_force=10.0, closest=0.5, evaporated_A=4.0, energy_jump_eV_per_atom=0.25
)


def forces(largest: float) -> np.ndarray:
    return np.array([[0.6 * largest, 0.8 * largest, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("energy", "largest", "before", "reason"),
    [
        (1.0, 9.99, None, None),
        (1.0, 10.01, None, "force: 10.0 eV/Å, above 10"),
        (1.0, 1.0, 1.49, None),  # 0.245 eV/atom
        (1.0, 1.0, 1.51, "energy_jump: 0.26 eV/atom in a step, above 0.25"),
        (1.0, 1.0, 0.49, "energy_jump: 0.26 eV/atom in a step, above 0.25"),
        (np.nan, 1.0, 1.0, "not_finite: energy or forces"),
        (1.0, np.inf, 1.0, "not_finite: energy or forces"),
    ],
)
def test_answers_beyond_the_limits(energy, largest, before, reason):
    found = why_forces_diverged(energy, forces(largest), LIMITS, before=before)

    assert found == reason


def test_atoms_on_each_other_are_a_contact():
    # radii 1.36 + 0.66: half of the sum is 1.01 Å
    apart = Atoms("PtO", [[0, 0, 0], [0, 0, 1.02]], cell=[9, 9, 9], pbc=True)
    close = Atoms("PtO", [[0, 0, 0], [0, 0, 8.0]], cell=[9, 9, 9], pbc=True)

    assert why_shape_diverged(apart, LIMITS, n_pieces=1) is None
    assert why_shape_diverged(close, LIMITS, n_pieces=1) == (
        "contact: O-Pt at 1.00 Å, 0.50 of the sum of radii"
    )


def test_what_leaves_has_evaporated():
    slab = fcc111("Pt", (2, 2, 3), vacuum=8.0)
    top = slab.positions[:, 2].max()
    slab += Atoms("O", [[0, 0, top + 3.9]])
    n_pieces = count_pieces(slab, LIMITS.evaporated_A)
    assert n_pieces == 1
    assert why_shape_diverged(slab, LIMITS, n_pieces=n_pieces) is None

    slab.positions[-1, 2] = top + 4.1
    reason = why_shape_diverged(slab, LIMITS, n_pieces=n_pieces)

    assert reason == "evaporated: a gap of more than 4 Å opened"
    assert category(reason) == "evaporated"


def test_pieces_count_images_and_molecules():
    water = molecule("H2O", vacuum=5.0)
    two = water + water
    two.positions[3:] += [9.0, 0.0, 0.0]

    assert count_pieces(bulk("Cu"), 4.0) == 1
    assert count_pieces(two, 4.0) == 2
    assert why_shape_diverged(two, LIMITS, n_pieces=2) is None
