from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from crack_md.errors import ConfigError, StructureError
from crack_md.structures import StructureEntry
from crack_md.workflows.surfaces.crystals import (
    Crystal,
    alloy_crystals,
    fcc_constant,
    read_crystals,
    whole_numbers,
)


def test_largest_remainders_are_rounded_up() -> None:
    shares = {"Pt": 0.5, "Ni": 0.3, "Co": 0.2}  # of 36: 18, 10.8, 7.2
    assert whole_numbers(shares, 36) == {"Pt": 18, "Ni": 11, "Co": 7}
    third = dict.fromkeys(("Pt", "Ni", "Co"), 1 / 3)
    assert whole_numbers(third, 36) == {"Pt": 12, "Ni": 12, "Co": 12}
    assert sum(whole_numbers(third, 16).values()) == 16


def test_what_lacks_to_one_is_vacant() -> None:
    counts = whole_numbers({"Pt": 0.75, "Ni": 0.20}, 40)
    assert counts == {"Pt": 30, "Ni": 8, "X": 2}


def test_vegard_is_the_mean_of_measured_constants() -> None:
    mean = fcc_constant({"Pt": 0.75, "Ni": 0.25})
    assert mean == pytest.approx(0.75 * 3.92 + 0.25 * 3.52)
    # hcp Co has 11.0 Å³ per atom
    assert fcc_constant({"Co": 1.0}) == pytest.approx(3.53, abs=0.02)


def test_ordered_alloys_of_all_pairs() -> None:
    made = alloy_crystals(["Pt", "Ni", "Co"], ["pure", "L12", "L10"])
    names = [crystal.name for crystal in made]
    assert names[:3] == ["Pt", "Ni", "Co"]
    assert set(names[3:9]) == {"Pt3Ni", "Pt3Co", "Ni3Pt", "Ni3Co", "Co3Pt", "Co3Ni"}
    assert names[9:] == ["PtNi", "PtCo", "NiCo"]
    l12 = made[names.index("Pt3Ni")].atoms
    assert Counter(l12.symbols) == {"Pt": 3, "Ni": 1}
    nickel = l12.positions[l12.symbols == "Ni"]
    assert nickel == pytest.approx(np.zeros((1, 3)))
    l10 = made[-3].atoms
    planes = {s: set(l10.positions[l10.symbols == s][:, 2]) for s in ("Pt", "Ni")}
    assert planes["Pt"] == {0.0}
    assert planes["Ni"] == {l10.cell[2, 2] / 2}


def test_a_skin_shares_the_crystal_of_its_host() -> None:
    both = alloy_crystals(["Pt", "Ni"], ["L12", "skin"])
    assert [crystal.tops for crystal in both] == [(None, "Pt"), (None, "Ni")]
    alone = alloy_crystals(["Pt", "Ni"], ["skin"])
    assert [crystal.tops for crystal in alone] == [("Pt",), ("Ni",)]


def test_atoms_are_drawn_by_seed_in_the_proportions_asked_for() -> None:
    (crystal,) = alloy_crystals(["Pt", "Ni"], ["random"], compositions=["Pt3Ni"])
    cell = crystal.atoms.repeat(2)
    draws = [crystal.draw(cell, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert all(Counter(atoms.symbols) == {"Pt": 24, "Ni": 8} for atoms in draws)
    assert list(draws[0].symbols) == list(draws[1].symbols)
    assert list(draws[0].symbols) != list(draws[2].symbols)
    assert crystal.elements == {"Pt", "Ni"}


def test_a_share_of_no_atom_is_refused() -> None:
    (crystal,) = alloy_crystals(["Pt", "Ni"], ["random"], compositions=["Pt99Ni"])
    with pytest.raises(StructureError, match="Ni: the share rounds to no atom among 4"):
        crystal.draw(crystal.atoms, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("elements", "structures", "compositions", "message"),
    [
        (["Pt", "Xy"], ["L12"], [], "'Xy' is no element"),
        (["Pt", "Pt"], ["L12"], [], "an element twice"),
        (["Pt", "Ni"], ["D022"], [], "unknown 'D022'; expected some of: pure"),
        (["Pt"], ["L12"], [], "needs two elements"),
        (["Pt", "Ni"], ["L12"], ["Pt3Ni"], "add it there"),
        (["Pt", "Ni"], ["random"], ["Pt3Cu"], "Pt3Cu holds Cu"),
        (["Pt", "Ni"], ["random"], ["Pt!"], "cannot read 'Pt!'"),
        (["Pt", "Ni"], ["random"], ["Pt0Ni"], "'Pt0Ni' has no atom of some element"),
    ],
)
def test_what_makes_no_sense_is_refused(
    elements: list[str], structures: list[str], compositions: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        alloy_crystals(elements, structures, compositions=compositions)


def write_cif(path: Path, sites: str) -> Path:
    cell = "".join(f"_cell_length_{axis} 3.8\n" for axis in "abc")
    cell += "".join(f"_cell_angle_{a} 90\n" for a in ("alpha", "beta", "gamma"))
    cell += "_symmetry_space_group_name_H-M 'P m -3 m'\n"
    columns = ("label", "type_symbol", "occupancy", "fract_x", "fract_y", "fract_z")
    names = "".join(f"_atom_site_{name}\n" for name in columns)
    path.write_text(f"data_x\n{cell}loop_\n{names}{sites}")
    return path


def test_partial_occupancies_become_shares_of_their_sites(tmp_path: Path) -> None:
    sites = "Pt1 Pt 1.0 0 0 0\nPt2 Pt 0.6 0 .5 .5\nNi2 Ni 0.3 0 .5 .5\n"
    (crystal,) = read_crystals(write_cif(tmp_path / "x.cif", sites))
    assert isinstance(crystal, Crystal)
    assert crystal.is_from_file
    assert dict(crystal.sites) == {"He": {"Pt": 0.6, "Ni": 0.3}}
    assert Counter(crystal.atoms.symbols) == {"Pt": 1, "He": 3}
    drawn = crystal.draw(crystal.atoms.repeat((5, 2, 1)), np.random.default_rng(0))
    assert Counter(drawn.symbols) == {"Pt": 10 + 18, "Ni": 9}  # and 3 vacancies


def test_shares_that_cannot_be_are_an_entry_that_says_so(tmp_path: Path) -> None:
    sites = "Pt1 Pt 0.9 0 0 0\nNi1 Ni 0.9 0 0 0\n"
    (entry,) = read_crystals(write_cif(tmp_path / "x.cif", sites))
    assert isinstance(entry, StructureEntry)
    assert entry.atoms is None
    assert "Pt 0.9, Ni 0.9; expected elements with shares" in entry.error


def test_files_without_shared_sites_are_taken_as_they_are(tmp_path: Path) -> None:
    cube = Atoms("Pt", cell=[2.7] * 3, pbc=True)
    cube.write(tmp_path / "cube.extxyz")
    (crystal,) = read_crystals(tmp_path / "cube.extxyz")
    assert isinstance(crystal, Crystal)
    assert crystal.structure == "bulk"
    assert not crystal.sites
    assert not crystal.is_cubic
