from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.db import connect

from crack_md.api.inputs import describe_calculator
from crack_md.errors import ConfigError, DataError
from crack_md.structures import StructureEntry, read_entries
from crack_md.workflows.relax.relax import relax_fcc_constant
from crack_md.workflows.surfaces.build import (
    BuildSettings,
    build_surfaces,
    relax_bulk,
    write_surfaces,
)
from crack_md.workflows.surfaces.crystals import Crystal, alloy_crystals
from crack_md.workflows.surfaces.cut import parse_planes
from crack_md.workflows.surfaces.slab import prepare_slab

INFO = describe_calculator(EMT())
SETTINGS = BuildSettings(parse_planes("111"))


class WithoutStress(EMT):
    """As models with direct forces are."""

    implemented_properties = ("energy", "forces")


def made(
    elements: str, structures: str, settings: BuildSettings = SETTINGS
) -> dict[str, StructureEntry]:
    crystals = alloy_crystals(elements.split(), structures.split())
    slabs = build_surfaces(crystals, EMT(), model=INFO, settings=settings)
    return {entry.name: entry for entry in slabs}


def test_pure_metals_have_the_constant_of_the_model() -> None:
    slab = made("Pt", "pure")["Pt(111)"]
    assert slab.atoms is not None
    own = relax_fcc_constant("Pt", EMT())
    assert slab.columns["lattice_constant_A"] == pytest.approx(own, abs=1e-3)
    # p(2x2) on four layers, nearest neighbors at a/√2
    assert Counter(slab.atoms.symbols) == {"Pt": 16}
    assert slab.atoms.cell.lengths()[:2] == pytest.approx(2 * own / 2**0.5, abs=2e-3)


def test_l12_relaxes_away_from_vegard() -> None:
    slab = made("Cu Au", "L12")["Cu3Au(111) L12"]
    assert slab.atoms is not None
    assert Counter(slab.atoms.symbols) == {"Cu": 12, "Au": 4}
    (crystal, _) = alloy_crystals(["Cu", "Au"], ["L12"])
    energies = []
    for scale in (0.998, 1.0, 1.002):
        cube = crystal.atoms.copy()
        edge = slab.columns["lattice_constant_A"] * scale
        cube.set_cell([edge] * 3, scale_atoms=True)
        cube.calc = EMT()
        energies.append(cube.get_potential_energy())
    assert energies[1] == min(energies)
    assert slab.columns["bulk_by"].endswith("relaxed bulk")


def test_l10_relaxes_its_tetragonal_axis() -> None:
    (crystal,) = alloy_crystals(["Cu", "Au"], ["L10"])
    bulk = relax_bulk(crystal, EMT(), INFO)
    a, b, c = bulk.atoms.cell.lengths()
    assert a == pytest.approx(b, abs=1e-3)
    assert abs(c / a - 1) > 0.01
    assert bulk.edge == pytest.approx((a * b * c) ** (1 / 3))


def test_a_skin_covers_the_whole_top_layer_and_nothing_else() -> None:
    slabs = made("Pt Ni", "L12 skin")
    bare, skin = slabs["Pt3Ni(111) L12"].atoms, slabs["Pt3Ni(111) Pt skin"].atoms
    assert bare is not None
    assert skin is not None
    layer = prepare_slab(skin).layer
    assert set(skin.symbols[layer == layer.max()]) == {"Pt"}
    below = layer < layer.max()
    assert list(skin.symbols[below]) == list(bare.symbols[below])
    assert Counter(bare.symbols)["Ni"] - Counter(skin.symbols)["Ni"] == 1
    assert slabs["Pt3Ni(111) Pt skin"].columns["skin"] == "Pt"


def test_random_slabs_are_seeded_and_without_placeholders() -> None:
    settings = replace(SETTINGS, random_slabs=2, seed=5)
    first, again = (made("Cu Pt Au", "random", settings) for _ in range(2))
    assert list(first) == ["CuPtAu(111) random 1", "CuPtAu(111) random 2"]
    one, two = (entry.atoms for entry in first.values())
    assert one is not None
    assert two is not None
    assert Counter(one.symbols) == {"Cu": 12, "Pt": 12, "Au": 12}
    assert list(one.symbols) != list(two.symbols)
    repeated = again["CuPtAu(111) random 1"].atoms
    assert repeated is not None
    assert list(one.symbols) == list(repeated.symbols)
    assert one.positions == pytest.approx(repeated.positions)
    assert [entry.columns["seed"] for entry in first.values()] == [5, 6]


def test_an_element_that_the_model_does_not_know_is_said() -> None:
    entry = made("Pt Co", "L12")["Pt3Co"]
    assert entry.atoms is None
    assert entry.status == "not_built"
    assert "does not know Co" in entry.error


def test_without_stress_vegard_through_the_own_metals() -> None:
    (crystal,) = alloy_crystals(["Cu", "Au"], ["random"], compositions=["Cu3Au"])
    bulk = relax_bulk(crystal, WithoutStress(), INFO)
    own = {symbol: relax_fcc_constant(symbol, EMT()) for symbol in ("Cu", "Au")}
    mean = 0.75 * own["Cu"] + 0.25 * own["Au"]
    assert bulk.edge == pytest.approx(mean, rel=1e-9)
    assert "no stress" in bulk.source


def test_an_adsorption_energy_model_keeps_vegard_and_says_so() -> None:
    (crystal,) = alloy_crystals(["Cu", "Au"], ["random"])
    model = replace(INFO, energy_reference="adsorption")
    bulk = relax_bulk(crystal, EMT(), model)
    assert bulk.edge == pytest.approx((3.61 + 4.08) / 2)
    assert bulk.source.startswith("Vegard's mean of measured metals")
    read = relax_bulk(replace(crystal, is_from_file=True), EMT(), model)
    assert read.source.startswith("as the file has it")


def test_the_database_names_slabs_and_says_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "slabs.db"
    slabs = tuple(made("Pt Ni", "skin random").values())
    assert write_surfaces(slabs, path) == 3
    read = read_entries(path)
    assert [entry.name for entry in read] == [entry.name for entry in slabs]
    assert all(entry.atoms is not None for entry in read)
    row = connect(path).get(name="Pt3Ni(111) Pt skin")
    assert row.facet == "(111)"
    assert row.structure == "skin"
    assert row.lattice_constant_A == slabs[0].columns["lattice_constant_A"]
    for entry in read:
        assert entry.atoms is not None
        prepare_slab(entry.atoms)  # as the screening does
    with pytest.raises(ConfigError, match="is there already"):
        write_surfaces(slabs, path)
    with pytest.raises(ConfigError, match="expected an ASE database"):
        write_surfaces(slabs, tmp_path / "slabs.cif")


def test_planes_with_several_sides_take_the_densest() -> None:
    slabs = made("Pt Ni", "L12", replace(SETTINGS, planes=parse_planes("111,100")))
    assert len(slabs) == 4
    assert sum("(100)" in name for name in slabs) == 2
    every = replace(SETTINGS, planes=parse_planes("100"), all_terminations=True)
    assert len(made("Pt Ni", "L12", every)) == 4


def test_positions_are_those_of_the_lattice() -> None:
    """Drawn atoms stand on ideal sites: screening relaxes them, not the builder."""
    slab = made("Cu Au", "random")["CuAu(111) random 1"].atoms
    assert slab is not None
    heights = np.unique(np.round(slab.positions[:, 2], 6))
    assert len(heights) == 4
    assert np.ptp(np.diff(heights)) < 1e-5


def test_shared_sites_are_named_by_their_elements() -> None:
    """Along (100), one side of such a crystal is all shared, the other half of it."""
    (l12, _) = alloy_crystals(["Pt", "Ni"], ["L12"])
    atoms = l12.atoms.copy()
    atoms.symbols[atoms.symbols == "Pt"] = "He"
    crystal = replace(
        l12, atoms=atoms, structure="random", sites={"He": {"Pt": 0.5, "Cu": 0.5}}
    )
    settings = replace(SETTINGS, planes=parse_planes("100"), all_terminations=True)
    slabs = build_surfaces([crystal], EMT(), model=INFO, settings=settings)
    assert {entry.name for entry in slabs} == {
        "Pt3Ni(100) (Pt/Cu)-terminated random 1",
        "Pt3Ni(100) Ni(Pt/Cu)-terminated random 1",
    }
    assert all("He" not in entry.atoms.symbols for entry in slabs if entry.atoms)


def test_a_slab_is_no_bulk(tmp_path: Path) -> None:
    slab = fcc111("Pt", (1, 1, 3), vacuum=8.0, periodic=True)
    crystal = Crystal("slab", "bulk", slab, is_cubic=False)
    (entry,) = build_surfaces([crystal], EMT(), model=INFO, settings=SETTINGS)
    assert entry.atoms is None
    assert "slabs are cut from bulks" in entry.error


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    slabs = tuple(made("Pt", "pure").values())
    assert write_surfaces(slabs, tmp_path / "new" / "slabs.db") == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_surfaces(slabs, tmp_path / "file" / "slabs.db")
