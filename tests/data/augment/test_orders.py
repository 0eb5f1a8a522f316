"""Orders of alloys: compositions, neighbors and layers, counted."""

import numpy as np
import pytest
from ase.build import fcc111
from ase.neighborlist import neighbor_list

from crack_md.data.augment.crystals import (
    MILLER,
    add_skin,
    build_crystal,
    build_surface,
    decorate,
    layer_of,
    surface_layer_of,
)

A = 4.0
NEIGHBOR = A / np.sqrt(2)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def crystal(order, family, *, seed=0, layers=4):
    return build_crystal(
        order,
        family,
        ("Pt", "Ni"),
        layers=layers,
        lattice_constant=A,
        vacuum=12.0,
        random=generator(seed),
    )


def neighbors(atoms, element, other):
    """Return how many neighbors of one element every atom of another has."""
    receivers, senders = neighbor_list("ij", atoms, 1.1 * NEIGHBOR)
    symbols = np.array(atoms.get_chemical_symbols())
    pairs = receivers[(symbols[receivers] == element) & (symbols[senders] == other)]
    return np.bincount(pairs, minlength=len(atoms))[symbols == element]


@pytest.mark.parametrize("seed", range(4))
def test_bulk_crystals_have_the_neighbors_of_cu3au_and_cuau(seed):
    # every Au of Cu3Au has 12 Cu; CuAu has 4 like and 8 unlike neighbors
    l1_2, l1_0 = (crystal(order, "bulk", seed=seed) for order in ("L1_2", "L1_0"))

    assert l1_2.symbols.count("Pt") == 3 * l1_2.symbols.count("Ni")
    assert set(neighbors(l1_2, "Ni", "Pt")) == {12}
    assert set(neighbors(l1_2, "Pt", "Ni")) == {4}
    assert l1_0.symbols.count("Pt") == l1_0.symbols.count("Ni")
    assert set(neighbors(l1_0, "Ni", "Ni")) == {4}
    assert set(neighbors(l1_0, "Ni", "Pt")) == {8}


@pytest.mark.parametrize("family", MILLER)
@pytest.mark.parametrize("seed", range(6))
def test_slabs_of_l1_2_have_no_two_minority_neighbors(family, seed):
    slab = crystal("L1_2", family, seed=seed)

    _, distances = neighbor_list("id", slab, 1.1 * NEIGHBOR)
    assert not neighbors(slab, "Ni", "Ni").any()
    np.testing.assert_allclose(distances, NEIGHBOR)
    assert slab.cell[2, 2] - np.ptp(slab.positions[:, 2]) == pytest.approx(12.0)


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_every_layer_of_l1_2_111_is_three_to_one(layers):
    slab = crystal("L1_2", "fcc111", layers=layers)

    layer = layer_of(slab)
    for number in range(layers):
        found = slab.symbols[layer == number]
        assert sorted(found) == ["Ni", "Pt", "Pt", "Pt"]
    assert len(slab) == 4 * layers


def test_both_terminations_of_l1_2_100_occur():
    tops = set()
    for seed in range(12):
        slab = crystal("L1_2", "fcc100", seed=seed)
        tops.add("".join(sorted(slab.symbols[layer_of(slab) == 0])))

    assert tops == {"NiPt", "PtPt"}


@pytest.mark.parametrize("family", MILLER)
def test_a_skin_covers_the_surface_and_leaves_the_rest(family):
    slab = crystal("L1_2", family)
    skin = add_skin(slab, "Pt", family)

    top = surface_layer_of(slab, family) == 0
    assert set(skin.symbols[top]) == {"Pt"}
    assert list(skin.symbols[~top]) == list(slab.symbols[~top])
    np.testing.assert_array_equal(skin.positions, slab.positions)
    assert "Ni" in skin.symbols


@pytest.mark.parametrize("family", ["fcc111", "fcc100", "fcc211", "hcp0001"])
def test_sandwiches_have_the_other_metal_in_the_second_layer_only(family):
    blank = build_surface(family, "2x1", 3, lattice_constant=A, vacuum=12.0)
    layer = surface_layer_of(blank, family)
    whole = 0
    for seed in range(20):
        alloy = decorate(
            blank, ("Pt", "Co"), order="sandwich", family=family, random=generator(seed)
        )
        assert set(alloy.symbols[layer != 1]) == {"Pt"}
        whole += set(alloy.symbols[layer == 1]) == {"Co"}

    assert 8 <= whole <= 20


def test_dilute_elements_keep_their_limit():
    blank = fcc111("Cu", (2, 2, 4), vacuum=6.0)
    counts = []
    for seed in range(60):
        alloy = decorate(
            blank,
            ("Pt", "Ni", "Sn"),
            order="ternary",
            most={"Sn": 3},
            random=generator(seed),
        )
        assert "Pt" in alloy.symbols
        assert "Ni" in alloy.symbols
        counts.append(alloy.symbols.count("Sn"))

    assert set(counts) == {1, 2, 3}


@pytest.mark.parametrize("order", ["random", "ordered"])
@pytest.mark.parametrize("seed", range(10))
def test_every_element_of_an_alloy_occurs(order, seed):
    slab = fcc111("Cu", (2, 2, 4), vacuum=6.0)

    alloy = decorate(slab, ("Pt", "Ni"), order=order, random=generator(seed))

    assert set(alloy.symbols) == {"Pt", "Ni"}
    np.testing.assert_array_equal(alloy.positions, slab.positions)


def test_ordered_alloys_have_skins_among_them():
    slab = fcc111("Cu", (2, 2, 4), vacuum=6.0)
    alloys = [
        decorate(slab, ("Pt", "Ni"), order="ordered", random=generator(seed))
        for seed in range(30)
    ]

    skins = [a for a in alloys if set(a.symbols[layer_of(a) == 0]) == {"Pt"}]
    assert len(skins) >= 5
