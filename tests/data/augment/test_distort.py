"""Displaced frames: amplitudes, strains, shears and holes that can be computed."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.neighborlist import neighbor_list

from crack_md.data.augment.distort import (
    displaced,
    given,
    hot,
    open_directions,
    rattled,
    scaled,
    sheared,
    strained,
    with_vacancy,
)
from crack_md.data.augment.recipe import (
    Given,
    Hot,
    Rattle,
    Scale,
    Shear,
    Strain,
    Vacancy,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def slab():
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    atoms.pbc = True
    return atoms


def test_a_given_frame_is_the_structure():
    (frame,) = given(slab(), Given(), random=generator())

    np.testing.assert_array_equal(frame.positions, slab().positions)


def test_rattle_amplitudes_have_the_width_asked_for():
    cell = bulk("Cu", cubic=True) * 6

    (frame,) = rattled(
        cell, Rattle(frames=1, smallest=0.1, largest=0.1), random=generator()
    )

    assert np.std(frame.positions - cell.positions) == pytest.approx(0.1, rel=0.05)


def test_rattle_amplitudes_cover_their_range():
    cell = bulk("Cu", cubic=True) * 3
    section = Rattle(frames=40, smallest=0.01, largest=0.2)

    widths = [
        np.std(frame.positions - cell.positions)
        for frame in rattled(cell, section, random=generator())
    ]

    assert 0.008 < min(widths) < 0.02
    assert 0.12 < max(widths) < 0.22


def test_hydrogen_moves_with_its_oxygen_and_little_against_it():
    water = molecule("H2O", cell=[12.0] * 3, pbc=True)
    against = []
    for seed in range(200):
        frame = displaced(water, 0.3, generator(seed))
        shift = frame.positions - water.positions
        against += [shift[1] - shift[0], shift[2] - shift[0]]

    assert np.std(against) == pytest.approx(0.1, rel=0.1)


def test_strain_keeps_the_vacuum_and_stays_in_range():
    atoms = slab()
    for frame in strained(
        atoms, Strain(frames=5, largest=0.04, rattle=0.0), random=generator()
    ):
        change = np.linalg.solve(atoms.cell.array, frame.cell.array) - np.eye(3)
        assert np.abs(change).max() <= 0.04 + 1e-12
        np.testing.assert_allclose(change, change.T, atol=1e-12)
        np.testing.assert_allclose(frame.cell[2], atoms.cell[2])
        assert np.abs(change[:2, :2]).max() > 1e-4
        np.testing.assert_allclose(
            frame.get_scaled_positions(), atoms.get_scaled_positions(), atol=1e-12
        )


def test_strained_molecules_change_their_bonds_and_keep_their_box():
    water = molecule("H2O", cell=[12.0] * 3, pbc=True)

    frames = list(
        strained(water, Strain(frames=6, largest=0.05, rattle=0.0), random=generator())
    )

    bonds = np.array([frame.get_distance(0, 1) for frame in frames])
    assert np.ptp(bonds) > 0.02
    assert np.abs(bonds / water.get_distance(0, 1) - 1).max() <= 0.15
    for frame in frames:
        np.testing.assert_array_equal(frame.cell.array, water.cell.array)


@pytest.mark.parametrize("factor", [0.85, 1.12])
def test_scaling_multiplies_all_distances_and_leaves_the_vacuum(factor):
    section = Scale(smallest=factor, largest=factor, rattle=0.0)
    crystal, surface = bulk("Pt", cubic=True, a=4.0), slab()

    (bulk_frame,) = scaled(crystal, section, random=generator())
    (frame,) = scaled(surface, section, random=generator())

    assert bulk_frame.get_volume() == pytest.approx(64.0 * factor**3)
    np.testing.assert_allclose(
        frame.get_all_distances(mic=True),
        factor * surface.get_all_distances(mic=True),
        atol=1e-9,
    )
    np.testing.assert_allclose(frame.cell[2], surface.cell[2])


@pytest.mark.parametrize("seed", range(8))
def test_shear_keeps_the_volume_and_the_height_of_the_cell(seed):
    section = Shear(largest=0.1, rattle=0.0)
    crystal, surface = bulk("Pt", cubic=True, a=4.0), slab()

    (bulk_frame,) = sheared(crystal, section, random=generator(seed))
    (frame,) = sheared(surface, section, random=generator(seed))

    gradient = bulk_frame.cell.array / 4.0 - np.eye(3)
    assert np.count_nonzero(gradient) == 1
    assert np.trace(gradient) == 0.0
    assert 0.0 < np.abs(gradient).max() <= 0.1
    assert bulk_frame.get_volume() == pytest.approx(64.0)
    np.testing.assert_allclose(
        bulk_frame.get_scaled_positions(), crystal.get_scaled_positions(), atol=1e-12
    )
    assert frame.get_volume() == pytest.approx(surface.get_volume())
    np.testing.assert_allclose(frame.positions[:, 2], surface.positions[:, 2])
    np.testing.assert_allclose(frame.cell[2], surface.cell[2])


def test_vacancies_repeat_small_bulks_and_spare_adsorbates():
    (hole,) = with_vacancy(
        bulk("Pt", cubic=True), Vacancy(atoms=8, rattle=0.0), random=generator()
    )
    surface = slab()
    add_adsorbate(surface, "O", 1.2, "fcc")
    for seed in range(20):
        (frame,) = with_vacancy(surface, Vacancy(atoms=8), random=generator(seed))
        assert frame.get_chemical_formula() == "Cu11O"

    assert len(hole) == 7
    assert hole.get_volume() == pytest.approx(2 * bulk("Pt", cubic=True).get_volume())
    thin = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    thin.pbc = True
    assert list(with_vacancy(thin, Vacancy(atoms=8), random=generator())) == []


def test_hot_neighbors_share_half_of_their_motion():
    crystal = bulk("Cu", cubic=True) * 4
    section = Hot(frames=40, smallest=0.2, largest=0.2, expansion=0.0)

    made = hot(crystal, section, random=generator())
    shifts = np.array([frame.positions - crystal.positions for frame in made])

    first, second, distance = neighbor_list("ijd", crystal, 2.6)
    together = np.mean(shifts[:, first] * shifts[:, second])
    # half of σ² is shared, and falls as exp(-d²/2λ²)
    expected = 0.5 * 0.2**2 * np.exp(-(distance[0] ** 2) / 18)
    assert np.std(shifts) == pytest.approx(0.2, rel=0.05)
    assert together == pytest.approx(expected, rel=0.15)


def test_open_directions_are_those_with_vacuum():
    assert open_directions(slab()).tolist() == [False, False, True]
    assert open_directions(bulk("Pt")).tolist() == [False] * 3
    assert open_directions(Atoms("O2", [[0, 0, 0], [0, 0, 1.2]])).tolist() == [True] * 3
