"""Reweighted frames give the averages of the other potential."""

import numpy as np
import pytest
from ase import Atoms

from benchmarks.own_chains import (
    CHAINS,
    KT_EV,
    judge_system,
    place,
    sides,
    systems,
)
from crack_md.data.dataset import LabelledStructure

SPREAD_A = 0.05
N_FRAMES = 4000
CHAIN = np.arange(N_FRAMES) % CHAINS


def frames_of(slope: float) -> tuple[list[LabelledStructure], list]:
    """Return O at normally distributed heights, and a label source that pulls at it."""
    slab = systems()["O/Pt(111)"]
    random = np.random.default_rng(0)
    frames, student = [], []
    for height in random.normal(scale=SPREAD_A, size=N_FRAMES):
        atoms = Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=slab.pbc)
        atoms.positions[-1, 2] += height
        forces = np.zeros((len(atoms), 3))
        energy = KT_EV * height**2 / (2 * SPREAD_A**2)
        student.append((energy, forces))
        pulled = forces.copy()
        pulled[-1, 2] = -slope
        free = np.arange(len(atoms)) >= 4
        frames.append(
            LabelledStructure(
                atoms, 7.0 + energy + slope * height, pulled, None, "", "", free
            )
        )
    return frames, student


def test_a_source_that_agrees_passes_whatever_its_zero() -> None:
    frames, student = frames_of(0.0)
    found = judge_system(frames, student, CHAIN, blow_ups=0)
    assert found.effective_frames == pytest.approx(N_FRAMES)
    assert found.energy_spread_meV == pytest.approx(0.0, abs=1e-9)
    assert max(found.worst.values()) == pytest.approx(0.0, abs=1e-9)
    assert found.sites["fcc"] == pytest.approx((1.0, 1.0))
    assert found.word == "PASS"


def test_a_source_that_pulls_shifts_the_mean_by_slope_times_variance() -> None:
    slope = 0.6
    frames, student = frames_of(slope)
    found = judge_system(frames, student, CHAIN, blow_ups=0)
    shift = found.height_A[1] - found.height_A[0]
    # of a normal distribution under exp(-slope z/kT); its error is 0.05 Å / √2800
    expected = -slope * SPREAD_A**2 / KT_EV
    assert shift == pytest.approx(expected, abs=4e-3)
    ratio = np.exp(-((slope * SPREAD_A / KT_EV) ** 2))
    assert found.effective_frames / N_FRAMES == pytest.approx(ratio, rel=0.1)
    assert found.force_mae_meV_per_A == pytest.approx(1e3 * slope / (3 * 13))
    assert found.worst["O–Pt"] > 2
    assert found.word == "FAIL"


def test_too_few_frames_decide_nothing() -> None:
    frames, student = frames_of(6.0)
    found = judge_system(frames, student, CHAIN, blow_ups=0)
    assert found.effective_frames < 50
    assert found.word == "INCONCLUSIVE"
    assert judge_system(frames, student, CHAIN, blow_ups=1).word == "FAIL"


def test_sides_share_all_groups_evenly() -> None:
    found = list(sides(CHAIN))
    assert len(found) == 35
    assert all(side.sum() == N_FRAMES // 2 for side in found)


def test_sites_are_told_by_the_layer_beneath() -> None:
    slab = systems()["O/Pt(111)"]
    assert place(slab) == ("fcc", pytest.approx(1.2))
    for number, kind in ((12, "top"), (8, "hcp"), (4, "fcc")):
        slab.positions[-1, :2] = slab.positions[number, :2]
        assert place(slab)[0] == kind
