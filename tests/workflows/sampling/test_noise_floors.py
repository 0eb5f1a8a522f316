from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from scipy.stats import norm

from crack_md.workflows.sampling.metrics import (
    Comparison,
    Metric,
    balanced_splits,
    compare,
    time_blocks,
)
from crack_md.workflows.sampling.molecule import (
    ALL_PAIRS,
    Observable,
    bin_edges,
    energy_window,
    find_molecule,
    geometric_observables,
    monitors,
)
from crack_md.workflows.sampling.reference import read_reference


def by_quantity(comparison: Comparison) -> dict[str, Metric]:
    return {metric.quantity: metric for metric in comparison.metrics}


def compared(observable: Observable) -> dict[str, Metric]:
    found = compare(
        observable,
        reference_groups=time_blocks(len(observable.reference)),
        sample_groups=time_blocks(len(observable.sample)),
        temperature_K=500.0,
    )
    return by_quantity(found)


def gaussian(shift: float = 0.0, n: int = 8000, seed: int = 0) -> np.ndarray:
    """Return quantiles in random order: the exact distribution, no two alike."""
    values = norm.ppf((np.arange(n) + 0.5) / n) + shift
    return np.random.default_rng(seed).permutation(values)[:, None]


def test_energies_a_known_way_apart():
    found = compared(Observable("E", "energy", gaussian(), gaussian(0.25, n=4000)))
    assert found["W1"].value == pytest.approx(250.0, rel=2e-3)
    assert found["W1"].unit == "meV"
    # halves of n values: E|W₁| is near ∫√(2 F(1 − F) · 4/n/π) dx = 1.61/√(n π/8) ...
    x = np.linspace(-6, 6, 4001)
    exact = np.trapezoid(np.sqrt(2 / np.pi * 4 / 8000 * norm.cdf(x) * norm.sf(x)), x)
    assert found["W1"].floor == pytest.approx(1e3 * exact, rel=0.3)
    assert found["W1"].ratio == pytest.approx(found["W1"].value / found["W1"].floor)
    assert found["W1"].sample_floor > found["W1"].floor


def test_the_floor_sees_what_changes_slowly():
    drifting = gaussian() + np.repeat([-0.5, 0.5], 4000)[:, None]
    slow = compared(Observable("E", "energy", drifting, drifting))["W1"]
    quick = compared(Observable("E", "energy", gaussian(), gaussian()))["W1"]
    # of 35 splits one parts the halves, 16 share 3:1, and 18 not at all
    assert slow.floor == pytest.approx(1e3 * (1 + 16 * 0.5) / 35, rel=0.2)
    assert slow.floor > 5 * quick.floor


def test_members_of_a_frame_share_its_weight():
    one = gaussian()
    three = np.repeat(one, 3, axis=1)
    a = compare(
        Observable("d", "distance", three, three + 0.1),
        reference_groups=time_blocks(8000),
        sample_groups=time_blocks(8000),
        temperature_K=500.0,
    )
    assert by_quantity(a)["W1"].value == pytest.approx(0.1, rel=1e-6)
    assert a.reference.sum() == pytest.approx(8000)
    assert a.sample.sum() == pytest.approx(8000)


def test_angles_are_compared_on_the_circle():
    rng = np.random.default_rng(0)
    near = [(s + 5 * rng.normal(size=(4000, 1))) % 360 - 180 for s in (-5, 5)]
    found = compared(Observable("φ", "torsion", *near))
    assert found["W1"].value == pytest.approx(10.0, abs=0.5)
    assert set(found) == {"W1", "JS", "F"}
    assert found["F"].unit == "meV"


def test_outliers_stay_in_the_outer_bins():
    sample = gaussian()
    sample[:100] = 1e3
    a = compare(
        Observable("E", "energy", gaussian(), sample),
        reference_groups=time_blocks(8000),
        sample_groups=time_blocks(8000),
        temperature_K=500.0,
    )
    assert a.sample.sum() == 8000
    assert a.sample.sum(axis=0)[-1] >= 100
    assert by_quantity(a)["W1"].value > 1e4  # W1 sees how far they are


def test_all_splits_of_eight_blocks():
    splits = balanced_splits(8)
    assert splits.shape == (35, 8)
    assert (splits.sum(axis=1) == 0).all()
    assert len({tuple(one) for one in splits}) == 35
    assert not any(tuple(-one) in {tuple(other) for other in splits} for one in splits)
    assert np.bincount(time_blocks(81)).tolist() == [11, 10, 10, 10, 10, 10, 10, 10]


def test_pairs_of_ethanol_by_hand():
    atoms = molecule("CH3CH2OH")
    atoms = atoms[np.random.default_rng(0).permutation(9)]
    found = find_molecule(atoms.numbers, atoms.positions[None])
    counts = {name: len(pairs) for name, pairs in found.pairs.items()}
    assert counts == {
        ALL_PAIRS: 36,
        "C–C": 1,
        "C–H": 12,
        "C–O": 2,
        "H–H": 15,
        "H–O": 6,
    }
    assert all((pairs[:, 0] != pairs[:, 1]).all() for pairs in found.pairs.values())


def test_observables_do_not_depend_on_where_the_molecule_is():
    atoms = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    frames = atoms.positions + 0.1 * rng.normal(size=(50, 9, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    found = find_molecule(atoms.numbers, frames)
    moved = frames @ turn + [1.0, 2.0, 3.0]
    for one in geometric_observables(found, frames, moved):
        assert np.allclose(one.reference, one.sample, atol=1e-9), one.name
    here, there = monitors(found, frames), monitors(found, moved)
    assert set(here) == {
        "radius of gyration",
        *(torsion.name for torsion in found.torsions),
    }
    assert all(np.allclose(here[name], there[name]) for name in here)


def test_mirror_images_and_equal_hydrogens_change_nothing():
    atoms = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    frames = atoms.positions + 0.1 * rng.normal(size=(400, 9, 3))
    found = find_molecule(atoms.numbers, frames)
    methyl = next(torsion for torsion in found.torsions if torsion.fold == 3)
    hydrogens = [quadruple[0] for quadruple in methyl.atoms]
    order = np.arange(9)
    order[hydrogens] = np.roll(hydrogens, 1)
    changed = (frames * [1, 1, -1])[:, order]
    for one in geometric_observables(found, frames, changed):
        metrics = compared(one)
        assert metrics["W1"].value == pytest.approx(0.0, abs=1e-9)
        assert metrics["JS"].value == pytest.approx(0.0, abs=1e-9)


def test_bins_of_angles_are_their_own_mirror_images():
    edges = bin_edges(Observable("φ", "torsion", np.zeros((1, 1)), np.zeros((1, 1))))
    assert np.allclose(edges, -edges[::-1])
    assert len(edges) == 37


def test_window_of_energies_holds_longer_samples_of_the_same():
    # U of n oscillators is a Gamma(n/2) variable in kT: ethanol and aspirin
    for n in (6, 21, 57):
        rng = np.random.default_rng(0)
        low, high = energy_window(rng.gamma(n / 2, size=5000))
        longer = rng.gamma(n / 2, size=1_000_000)
        assert np.mean((longer < low) | (longer > high)) < 2e-4
        assert high < 1.5 * n / 2 + 18


def test_halves_of_ethanol_are_not_apart(references: Path):
    reference = read_reference(references / "data" / "rmd17", molecule="ethanol")
    molecule = find_molecule(reference.numbers, reference.positions)
    half = len(reference) // 2
    sides = reference.positions[:half], reference.positions[-half:]
    for one in geometric_observables(molecule, *sides):
        for metric in compared(one).values():
            assert metric.ratio < 1.0, metric
