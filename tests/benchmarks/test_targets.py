import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.units import GPa

from benchmarks import dft_sets, packaged_student
from benchmarks.targets.adsorption import UNSEEN, relative_errors, unseen_pairs
from benchmarks.targets.bulk import bulk_properties
from benchmarks.targets.card import write_card
from benchmarks.targets.dynamics import oxygen_on
from benchmarks.targets.record import Check
from benchmarks.targets.short_range import Hole, find_hole
from benchmarks.targets.table import card_table, target_text, value_text
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ModelMetadata
from crack_md.models.limits import LabelSpread, Limits
from tests.factories import tiny_model

has_references = pytest.mark.skipif(
    not dft_sets.references().is_dir(),
    reason="no reference data: set CRACK_MD_REFERENCES",
)


class Springs(Calculator):
    """Springs k/2 (r − r0)² − ε between nearest neighbors."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    k, length, depth = 2.0, 2.8, 0.3

    def calculate(self, atoms=None, properties=("energy",), changes=all_changes):
        super().calculate(atoms, properties, changes)
        i, r, vector = neighbor_list("idD", atoms, 1.2 * self.length)
        stretch = r - self.length
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, (self.k * stretch / r)[:, None] * vector)
        energy = 0.5 * np.sum(0.5 * self.k * stretch**2 - self.depth)
        self.results = {"energy": float(energy), "forces": forces}


def test_springs_have_the_elastic_constants_of_the_closed_form():
    found = bulk_properties("Pt", Springs())
    constant = 2**0.5 * Springs.length
    assert found.lattice_constant_A == pytest.approx(constant, abs=1e-4)
    # fcc with nearest neighbors: C44 = k/a, B = 4k/(3a); a vacancy breaks 12 bonds
    # and a half of them is regained by the atom that was taken out
    assert found.c44_GPa * GPa == pytest.approx(Springs.k / constant, rel=2e-3)
    expected = 4 * Springs.k / (3 * constant)
    assert found.bulk_modulus_GPa * GPa == pytest.approx(expected, rel=2e-3)
    assert found.vacancy_eV == pytest.approx(6 * Springs.depth, abs=1e-5)


def test_a_hole_is_found_where_the_energy_falls_inward():
    distance = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    rising = np.array([40.0, 9.0, 2.0, -1.0, -0.5, 0.0])
    assert find_hole("O above Pt", distance, rising, 2.0) is None
    holed = np.array([-7.0, -3.0, 2.0, -1.0, -0.5, 0.0])
    assert find_hole("O above Pt", distance, holed, 2.0) == Hole(
        "O above Pt", from_A=1.5, lowest_A=0.5, depth_eV=9.0, below_well_eV=6.0
    )


def test_a_flat_stretch_counts_as_a_hole():
    distance = np.array([0.5, 1.0, 1.5, 2.0])
    flat = np.array([5.0, 2.0, 2.0, -1.0])
    found = find_hole("O above Pt", distance, flat, 2.0)
    assert found is not None
    assert found.depth_eV == 0.0


def test_energies_that_are_no_numbers_are_a_hole():
    energies = np.array([np.nan, 2.0, 1.0, -1.0])
    found = find_hole("Pt–Pt", np.array([0.5, 1.0, 1.5, 2.0]), energies, 2.0)
    assert found is not None
    assert found.lowest_A == 0.5


@pytest.mark.parametrize(
    ("check", "reached"),
    [
        (Check("MAE", 0.08, "eV", 0.085), True),
        (Check("error", -0.3, "eV", 0.25), False),
        (Check("R", 0.98, "", 0.99, at_least=True), False),
        (Check("order", -0.01, "eV", 0.0, at_least=True), False),
        (Check("O on Ni", None, "eV", 0.25), False),
        (Check("a", 0.01, "Å"), None),
    ],
)
def test_a_target_is_reached_or_not(check: Check, reached: bool | None):
    assert check.reached is reached


def test_numbers_are_printed_with_units_and_counts():
    assert value_text(Check("MAE", 0.0849, "eV", 0.085, n=60).as_dict()) == (
        "0.085 eV (n 60)"
    )
    assert value_text(Check("holes", 3, "", 0.0, n=16).as_dict()) == "3 of 16"
    assert value_text(Check("O", None, "eV").as_dict()) == "not known to the model"
    assert target_text(Check("R", 1.0, "", 0.99, at_least=True).as_dict()) == "≥ 0.99"


def test_errors_are_relative_to_platinum():
    values = [
        {"name": "Pt(111)", "model": -4.0, "dft": 1.5},
        {"name": "Ni(111)", "model": -5.0, "dft": 0.25},
    ]
    errors = relative_errors({"values": values})
    assert errors == {"Pt": 0.0, "Ni": pytest.approx(0.25)}
    assert relative_errors({"values": values[1:]}) == {}


def test_unseen_sets_have_all_their_metals():
    pairs = unseen_pairs()
    assert len(pairs) == 4 * len(UNSEEN)
    for pair in pairs:
        metals = pair.name.split()[0].split("-")
        assert set(pair.clean.symbols) == set(metals)
        assert len(pair.covered) == len(pair.clean) + 1 == 17
    assert len({str(pair.clean.symbols) for pair in pairs}) == 2 * len(UNSEEN)


def test_nickel_atoms_do_not_touch_under_the_skin():
    slab = oxygen_on(skin="Ni")
    assert slab.get_chemical_formula() == "Ni3OPt13"
    nickel = np.flatnonzero(slab.symbols == "Ni")
    assert all(slab.get_tags()[nickel] > 1)
    apart = slab.get_all_distances(mic=True)[np.ix_(nickel, nickel)]
    assert apart[apart > 0].min() > 3.5


def test_rows_of_one_model_are_kept(tmp_path: Path):
    path = tmp_path / "emt.json"
    options = ["--model", "emt", "--source", "emt", "--out", str(tmp_path)]
    options += ["--json", str(path)]
    packaged_student.main([*options, "--rows", "bulk"])
    packaged_student.main([*options, "--rows", "short_range"])
    record = json.loads(path.read_text())
    assert list(record["rows"]) == ["bulk", "short_range"]
    checks = record["rows"]["bulk"]["checks"]
    assert all(check["reached"] in (True, None) for check in checks)
    text = card_table(record)
    assert "| Pt: vacancy, error (source of the labels) | 0 eV |" in text
    assert "| 0 eV | ≤ 0.15 eV | reached |" in text
    # numbers of other weights do not stay beside new ones
    record["model_sha256"] = "other"
    path.write_text(json.dumps(record))
    packaged_student.main([*options, "--rows", "bulk"])
    assert list(json.loads(path.read_text())["rows"]) == ["bulk"]


def test_card_has_what_the_file_says_and_keeps_words(tmp_path: Path):
    limits = Limits(
        adsorbates=("O", "OH"),
        largest_shares={26: 0.25},
        most_oxygen_per_metal=0.3,
        label_spreads=(LabelSpread(frozenset({29, 78}), 0.081),),
    )
    metadata = ModelMetadata("total", (8, 78), {"H2": -6.9}, limits=limits)
    save_model(tiny_model(metadata=metadata), tmp_path / "orr-2026-11.pt")
    record = {
        "model": str(tmp_path / "orr-2026-11.pt"),
        "model_sha256": load_model(tmp_path / "orr-2026-11.pt").metadata.sha256,
        "source": "recipe:some/folder/labels.yaml",
        "date": "2026-11-29T15:00",
        "processor": "a processor",
        "rows": {
            "speed": {
                "against": "through ASE",
                "checks": [Check("one core", 0.31, "ms/atom", 0.4).as_dict()],
            }
        },
    }
    card = tmp_path / "card.md"
    write_card(card, record)
    text = card.read_text()
    assert text.startswith("# orr-2026-11\n")
    assert "| elements | O, Pt |" in text
    assert (
        "| one core (through ASE) | 0.310 ms/atom | ≤ 0.4 ms/atom | reached |" in text
    )
    assert "labels by `recipe:labels.yaml`" in text
    assert "- Adsorbates: O\\*, OH\\*; others are `out_of_domain`." in text
    assert "- Fe near the surface: at most 25 %." in text
    assert "- Spread of the labels, 0.08 eV: Cu, Pt." in text
    card.write_text(text.replace("## Measured", "My words.\n\n## Measured"))
    slower = Check("one core", 0.5, "ms/atom", 0.4)
    record["rows"]["speed"]["checks"] = [slower.as_dict()]
    write_card(card, record)
    text = card.read_text()
    assert "My words." in text
    assert "| 0.500 ms/atom | ≤ 0.4 ms/atom | **not reached** |" in text
    record["model_sha256"] = "other"
    with pytest.raises(SystemExit, match="not the model that was measured"):
        write_card(card, record)


def test_a_row_without_its_source_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "emt.json"
    options = ["--model", "emt", "--out", str(tmp_path), "--json", str(path)]
    packaged_student.main([*options, "--rows", "phonons"])
    assert "phonons: left out: this row compares" in capsys.readouterr().out
    assert json.loads(path.read_text())["rows"] == {}


def test_unknown_rows_are_named():
    with pytest.raises(SystemExit, match="unknown row 'spead'"):
        packaged_student.main(["--rows", "spead"])


@has_references
def test_pure_metals_are_as_published():
    oxygen = {pair.name: pair for pair in dft_sets.pure_metal_pairs("O")}
    assert len(oxygen) == 12
    assert next(iter(oxygen)) == "Pt(111)"
    difference = oxygen["Ni(111)"].dft - oxygen["Pt(111)"].dft
    assert difference == pytest.approx(-1.235, abs=1e-3)
    assert len(oxygen["Ni(111)"].covered) == len(oxygen["Ni(111)"].clean) + 1 == 46
    hydroxyl = dft_sets.pure_metal_pairs("OH")
    assert all(len(p.covered) == len(p.clean) + 2 for p in hydroxyl)
    alloys = dft_sets.gpaw_pairs("OH")
    assert len(alloys) == 1 + 342 + 310 + 196
    assert alloys[0].site == "ontop"


def test_platinum_order_is_of_example_surfaces():
    from ase.db import connect

    from benchmarks.literature import PLATINUM_ORDER

    path = Path(__file__).parents[2] / "examples" / "surfaces.db"
    names = {row.name for row in connect(path).select()}
    assert {o.weaker for o in PLATINUM_ORDER} | {
        o.stronger for o in PLATINUM_ORDER
    } <= names
