"""Frames at short and long distances: heights and bonds asked for come out."""

import numpy as np
import pytest
from ase.build import add_adsorbate, bulk, fcc111, molecule

from crack_md.data.augment.distort import (
    light_bonds,
    pressed,
    pulled,
    pushed,
    stretched,
)
from crack_md.data.augment.recipe import Contact, Pull, Push, Stretch

METAL = list(range(12))
OXYGEN, HYDROGEN = 12, 13


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def slab(adsorbate="OH"):
    atoms = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=7.0)
    add_adsorbate(atoms, "O", 1.25, "fcc")
    if adsorbate == "OH":
        atoms.append("H")
        atoms.positions[-1] = atoms.positions[-2] + [0.0, 0.6, 0.77]
    atoms.pbc = True
    return atoms


def frames(make, section, atoms, count=40):
    return [
        f for seed in range(count) for f in make(atoms, section, random=generator(seed))
    ]


def nearest(frame, atom, others=METAL):
    return frame.get_distances(atom, others, mic=True).min()


def test_pushed_adsorbates_touch_at_the_distances_asked_for():
    section = Push(nearest=0.3, farthest=1.7, rattle=0.0)
    made = frames(pushed, section, slab("O"), 120)

    distances = np.array([nearest(frame, OXYGEN) for frame in made])
    depth = [f.positions[OXYGEN, 2] - f.positions[METAL, 2].max() for f in made]
    assert len(made) >= 110
    assert 0.3 - 1e-6 <= distances.min() < 0.45
    assert distances.max() < 2.5
    assert min(depth) < -1.5
    for frame in made:
        np.testing.assert_array_equal(frame.positions[METAL], slab().positions[METAL])


def test_a_pushed_ball_rests_exactly_above_an_atom():
    atoms = slab("O")
    atoms.positions[OXYGEN, :2] = atoms.positions[11, :2]
    top = atoms.positions[METAL, 2].max()
    section = Push(nearest=0.8, farthest=0.8, depth=0.0, rattle=0.0)

    heights = np.array(
        [frame.positions[OXYGEN] for frame in frames(pushed, section, atoms, 60)]
    )

    above = np.linalg.norm(heights[:, :2] - atoms.positions[11, :2], axis=1) < 1e-9
    resting = np.isclose(heights[above, 2], top + 0.8)
    assert resting.sum() >= 8


def test_hydroxide_is_pushed_and_pulled_whole():
    atoms = slab()
    bond = atoms.get_distance(OXYGEN, HYDROGEN)
    for make, section in ((pushed, Push(rattle=0.0)), (pulled, Pull(rattle=0.0))):
        for frame in frames(make, section, atoms):
            assert frame.get_distance(OXYGEN, HYDROGEN) == pytest.approx(bond)


def test_pulled_adsorbates_rise_straight_up_to_five_angstrom():
    section = Pull(nearest=0.2, farthest=5.0, rattle=0.0)
    rise = np.array(
        [
            frame.positions[OXYGEN] - slab("O").positions[OXYGEN]
            for frame in frames(pulled, section, slab("O"), 100)
        ]
    )

    assert np.abs(rise[:, :2]).max() == 0.0
    assert 0.2 <= rise[:, 2].min() < 0.5
    assert 4.6 < rise[:, 2].max() <= 5.0


def test_hydroxide_is_stretched_and_turned():
    made = frames(stretched, Stretch(nearest=0.6, farthest=1.8), slab(), 100)

    bonds = np.array([f.get_distance(OXYGEN, HYDROGEN, mic=True) for f in made])
    below = [f.positions[HYDROGEN, 2] < f.positions[OXYGEN, 2] for f in made]
    assert len(made) >= 95
    assert 0.6 <= bonds.min() < 0.7
    assert 1.6 < bonds.max() <= 1.8
    assert 0.15 < np.mean(below) < 0.6
    assert min(nearest(f, HYDROGEN) for f in made) > 0.54


@pytest.mark.parametrize(
    ("name", "bonds"), [("H2O", 2), ("H2", 1), ("O2", 1), ("OH", 1)]
)
def test_molecules_are_stretched_bond_by_bond(name, bonds):
    atoms = molecule(name, cell=[12.0] * 3, pbc=True)
    found = light_bonds(atoms)

    made = frames(stretched, Stretch(), atoms, 60)

    assert len(found) == bonds
    for fixed, moving in found:
        ideal = atoms.get_distance(fixed, moving)
        factors = [f.get_distance(fixed, moving) / ideal for f in made]
        assert 0.6 / 0.98 - 1e-9 <= min(factors) < 0.8
        assert 1.5 < max(factors) <= 1.8 / 0.98 + 1e-9


def test_neighbors_are_pressed_to_the_fraction_asked_for():
    crystal = bulk("Pt", cubic=True, a=4.0) * 2
    section = Contact(nearest=0.4, farthest=0.4, rattle=0.0)

    for frame in frames(pressed, section, crystal, 10):
        distances = frame.get_all_distances(mic=True)
        shortest = distances[distances > 0].min()
        moved = np.linalg.norm(frame.positions - crystal.positions, axis=1) > 1e-9
        assert shortest == pytest.approx(0.4 * 4.0 / np.sqrt(2))
        assert moved.sum() == 2


def test_structures_without_an_adsorbate_give_no_such_frames():
    clean = fcc111("Pt", (2, 2, 3), vacuum=6.0)
    clean.pbc = True
    for atoms in (clean, bulk("Pt", cubic=True)):
        assert frames(pushed, Push(), atoms, 3) == []
        assert frames(pulled, Pull(), atoms, 3) == []
        assert frames(stretched, Stretch(), atoms, 3) == []
