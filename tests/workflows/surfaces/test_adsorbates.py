from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from crack_md.errors import ConfigError
from crack_md.workflows.surfaces.adsorbates import (
    ADSORBATES,
    adsorbate_named,
    parse_adsorbates,
)


@pytest.mark.parametrize(
    ("name", "gases"),
    [
        ("O", {"H2O": 1.0, "H2": -1.0}),
        ("OH", {"H2O": 1.0, "H2": -0.5}),
        ("OOH", {"H2O": 2.0, "H2": -1.5}),
        ("H", {"H2": 0.5}),
        ("CO:C", {"CO": 1.0}),
    ],
)
def test_gas_molecules_of_adsorbates(name: str, gases: dict[str, float]) -> None:
    assert adsorbate_named(name).reference == gases


@pytest.mark.parametrize("name", ["O", "OH", "OOH", "CO:C", "CO:1", "NH3:N", "CH3OH:1"])
def test_binding_atom_is_first_at_the_origin_and_lowest(name: str) -> None:
    adsorbate = adsorbate_named(name)
    positions = adsorbate.atoms.positions
    assert np.abs(positions[0]).max() < 1e-12
    assert positions[1:, 2].mean() >= 0 if len(positions) > 1 else True


def test_intermediates_have_the_bonds_of_water_and_peroxide() -> None:
    assert ADSORBATES["OH"].atoms.get_distance(0, 1) == pytest.approx(0.98, abs=0.01)
    peroxyl = ADSORBATES["OOH"].atoms
    assert peroxyl.get_distance(0, 1) == pytest.approx(1.44, abs=0.01)
    assert peroxyl.get_distance(1, 2) == pytest.approx(0.98, abs=0.01)
    assert peroxyl.get_angle(0, 1, 2) == pytest.approx(101, abs=1)
    assert not ADSORBATES["OH"].is_axial
    assert ADSORBATES["O"].is_axial


def test_carbon_monoxide_stands_on_the_atom_that_was_named() -> None:
    on_carbon, on_oxygen = adsorbate_named("CO:C"), adsorbate_named("CO:O")
    assert on_carbon.binding == "C"
    assert on_oxygen.binding == "O"
    assert on_carbon.is_axial
    bond = molecule("CO").get_distance(0, 1)
    assert on_carbon.atoms.positions[1] == pytest.approx([0, 0, bond])
    assert on_carbon.key != on_oxygen.key


def test_molecule_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    turned = molecule("CO")
    turned.rotate(70, (1, 2, 3))
    turned.translate([5, 5, 5])
    ase.io.write("carbonyl.xyz", turned)
    adsorbate = adsorbate_named("carbonyl.xyz:1")
    assert adsorbate.name == "carbonyl"
    assert adsorbate.binding == "C"
    reference = adsorbate_named("CO:C").atoms.positions
    assert adsorbate.atoms.positions == pytest.approx(reference, abs=1e-6)


def test_list_of_adsorbates() -> None:
    names = [adsorbate.name for adsorbate in parse_adsorbates("O, OH,OOH,O,CO:C")]
    assert names == ["O", "OH", "OOH", "CO"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no adsorbate given"),
        ("XY2", "unknown adsorbate 'XY2'; expected O, OH, OOH"),
        ("CO", r"which atom of CO binds.*0 O, 1 C: for instance CO:0"),
        ("CO:N", "'N' does not name one atom of CO"),
        ("CO:2", "'2' does not name one atom of CO"),
        ("NH3:H", "'H' does not name one atom of NH3"),
        ("SH2:S", "no gas-phase reference for S"),
        ("absent.xyz:0", "unknown adsorbate 'absent.xyz'"),
        ("noise.xyz:0", "cannot read the adsorbate 'noise.xyz'"),
        ("CO:C,CO:O", "several adsorbates are called CO"),
    ],
)
def test_what_cannot_be_an_adsorbate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("noise.xyz").write_text("nothing")
    with pytest.raises(ConfigError, match=message):
        parse_adsorbates(text)
