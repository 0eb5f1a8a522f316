import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.spacegroup import crystal

from crack_md.errors import CheckpointError
from crack_md.models.limits import (
    FAR_AWAY,
    LabelSpread,
    Limits,
    bonded_groups,
    near_surface,
    share,
)

FE, CO, NI, CU, RE, PT = 26, 27, 28, 29, 75, 78
LIMITS = Limits(
    adsorbates=("O", "OH"),
    largest_shares={FE: 0.25, CO: 0.5},
    smallest_area_A2=11.0,
    most_oxygen_per_metal=0.25,
    doubtful_elements={RE: "O* is 0.26 eV too strong"},
    label_spreads=(
        LabelSpread(frozenset({CU, PT}), 0.08),
        LabelSpread(frozenset({NI, CU, PT}), 0.11),
        LabelSpread(frozenset({FE, CO, NI, CU, PT}), 0.2),
    ),
)


def slab(*layers: str, size: tuple[int, int] = (2, 2)) -> Atoms:
    """Return fcc(111) with these elements from the top down."""
    atoms = fcc111("Pt", (*size, len(layers)), a=3.97, vacuum=8.0, periodic=True)
    atoms.symbols = [layers[tag - 1] for tag in atoms.get_tags()]
    return atoms


def with_oxygen(atoms: Atoms, n: int = 1) -> Atoms:
    places = atoms.positions[atoms.get_tags() == 1][:n]
    return atoms + Atoms(f"O{n}", places + np.array([0.0, 0.0, 1.8]))


def test_shares_and_depths_are_counted():
    numbers = np.array([FE, PT, PT, CO])
    assert share(numbers, FE) == 0.25
    assert share(numbers, NI) == 0.0
    assert share(numbers[:0], FE) == 0.0
    heights = np.array([0.0, 2.3, 4.6, 6.9])
    assert near_surface(heights).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("layers", "ratio"),
    [
        (("Fe", "Pt", "Pt"), 2.0),  # one of two layers, and a quarter is the limit
        (("Pt", "Fe", "Pt"), 2.0),
        (("Pt", "Pt", "Fe"), 1.0 / 16 / 0.25),  # deep iron does not count
        (("Co", "Co", "Pt"), 2.0),
        (("Pt", "Co", "Pt"), 1.0),  # at the limit, not beyond it
        (("Pt", "Ni", "Pt"), 11.0 / (2**2 * 3.97**2 * 3**0.5 / 4)),
    ],
)
def test_shares_near_the_surface_are_limited(layers: tuple[str, ...], ratio: float):
    found, _ = LIMITS.distance(with_oxygen(slab(*layers)))
    expected = max(ratio, 11.0 / (2**2 * 3.97**2 * 3**0.5 / 4), 1 / 12 / 0.25)
    assert found == pytest.approx(expected)


def test_the_reason_names_share_and_limit():
    far, why = LIMITS.distance(with_oxygen(slab("Fe", "Fe", "Pt")))
    assert far == pytest.approx(4.0)
    assert "100 % Fe near the surface" in why
    assert "25 %" in why


def test_clean_metals_and_molecules_are_not_judged():
    assert LIMITS.distance(slab("Fe", "Fe", "Fe"))[0] == 0.0
    assert LIMITS.distance(bulk("Fe"))[0] == 0.0
    assert LIMITS.distance(molecule("H2O2", cell=[9.0] * 3, pbc=True))[0] == 0.0


def test_other_adsorbates_are_beyond():
    known = slab("Pt", "Pt", "Pt")
    add_adsorbate(known, molecule("OH"), 2.0, "ontop")
    assert LIMITS.distance(known)[0] < 1
    peroxyl = slab("Pt", "Pt", "Pt")
    add_adsorbate(peroxyl, Atoms("OOH", [[0, 0, 0], [0, 1.2, 0.8], [0, 1, 1.8]]), 2.0)
    far, why = LIMITS.distance(peroxyl)
    assert far == FAR_AWAY
    assert why == "HO2 on the surface; labels had O, OH"
    assert Limits().distance(peroxyl)[0] < 1  # no limit was set


def test_groups_cross_cell_boundaries_and_do_not_depend_on_order():
    atoms = Atoms("HOO", [[0.1, 0, 5], [9.3, 0, 5], [4, 4, 5]], cell=[10] * 3, pbc=True)
    assert sorted(bonded_groups(atoms)) == ["HO", "O"]
    assert sorted(bonded_groups(atoms[[2, 1, 0]])) == ["HO", "O"]
    chain = Atoms("O5", [[1.4 * i, 0, 0] for i in (4, 0, 2, 1, 3)])
    assert bonded_groups(chain) == ("O5",)


@pytest.mark.parametrize(("n", "beyond"), [(1, False), (2, False), (3, True)])
def test_coverage_is_an_area(n: int, beyond: bool):
    far, why = LIMITS.distance(with_oxygen(slab("Pt", "Pt", "Pt", "Pt"), n))
    area = 4 * 3.97**2 * 3**0.5 / 4
    assert far == pytest.approx(11.0 * n / area)
    assert (far > 1) is beyond
    assert f"{area / n:.1f} Å²" in why


def test_oxides_are_beyond():
    oxide = crystal(
        ("Ni", "O"),
        [(0, 0, 0), (0.5, 0.5, 0.5)],
        spacegroup=225,
        cellpar=[4.2] * 3 + [90] * 3,
    )
    far, _ = LIMITS.distance(oxide)
    assert far == pytest.approx(4.0)
    only_oxygen = Limits(most_oxygen_per_metal=0.25)
    far, why = only_oxygen.distance(oxide)
    assert far == pytest.approx(4.0)
    assert "as in an oxide" in why


def test_symmetry_rotated_and_renumbered_slabs_are_judged_alike():
    atoms = with_oxygen(slab("Fe", "Pt", "Co"))
    expected = LIMITS.distance(atoms)
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    assert LIMITS.distance(turned)[0] == pytest.approx(expected[0])
    order = np.random.default_rng(0).permutation(len(atoms))
    assert LIMITS.distance(atoms[order]) == expected
    doubled = LIMITS.distance(atoms * (2, 1, 1))
    assert doubled[0] == pytest.approx(expected[0])


def test_the_spread_is_that_of_the_smallest_set():
    assert LIMITS.label_spread([PT, CU, 8]) == 0.08
    assert LIMITS.label_spread([PT, NI, 8, 1]) == 0.11
    assert LIMITS.label_spread([PT, CO]) == 0.2
    assert LIMITS.label_spread([PT, RE]) == 0.2  # in no set: the largest
    assert Limits().label_spread([PT]) is None


def test_doubtful_elements_are_warned_of():
    assert LIMITS.warnings([PT, RE]) == ("Re: O* is 0.26 eV too strong",)
    assert LIMITS.warnings([PT]) == ()


def test_plain_containers_keep_everything():
    assert Limits.from_plain(LIMITS.plain()) == LIMITS
    assert Limits.from_plain({}) == Limits()
    assert Limits.from_plain(Limits().plain()) == Limits()
    assert LIMITS.plain()["largest_shares"] == {"Fe": 0.25, "Co": 0.5}


@pytest.mark.parametrize(
    "content",
    [
        {"largest_shares": {"Xx": 0.5}},
        {"largest_shares": {"Fe": 0.0}},
        {"largest_shares": ["Fe"]},
        {"label_spreads": [{"metals": ["Pt"]}]},
        {"label_spreads": [{"metals": ["Pt"], "spread_eV": -0.1}]},
        {"smallest_area_A2": "wide"},
        {"smallest_area": 11.0},
    ],
)
def test_unusable_limits_are_refused(content: dict[str, object]):
    with pytest.raises(CheckpointError, match="limits"):
        Limits.from_plain(content)


def test_silicon_belongs_to_the_slab_as_it_does_in_a_screening():
    """O* on a silicide is O*; B and Si were counted into the adsorbate here."""
    silicide = with_oxygen(slab("Si", "Pt", "Pt"))
    assert Limits(adsorbates=("O",)).distance(silicide)[0] <= 1
