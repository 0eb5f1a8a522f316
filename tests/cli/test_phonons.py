import json
from pathlib import Path

import ase.io
import pytest
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms

from crack_md.models.checkpoint import save_model
from tests.cli.commands import crack_md
from tests.factories import oxygen_slab, tiny_model


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    ase.io.write(tmp_path / "cu.cif", bulk("Cu", cubic=True, a=3.65))
    return tmp_path / "cu.cif"


def test_bands_of_copper(copper: Path, tmp_path: Path):
    pytest.importorskip("phonopy", reason="needs phonopy")
    options = ["--model", "emt", "--supercell", "2,2,2", "--out", tmp_path / "out"]
    done = crack_md("phonons", copper, *options, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["relaxed"]
    assert found["max_stress_GPa"] < 0.01
    assert found["supercell_atoms"] == 32
    assert 7.5 < found["max_frequency_THz"] < 8.5
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        ".lock",
        "bands.png",
        "dos.csv",
        "forces",
        "phonons.json",
        "phonopy_params.yaml",
        "relaxed.traj",
        "settings.json",
        "thermal.csv",
    }
    again = crack_md("phonons", copper, *options)
    assert "supercell 2×2×2 of 32 atoms, displaced in 1 ways" in again.stdout
    assert "imaginary    none" in again.stdout


def test_without_phonopy_the_extra_is_named(copper: Path, tmp_path: Path):
    try:
        import phonopy  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("phonopy is installed")
    out = tmp_path / "out"
    done = crack_md("phonons", copper, "--model", "emt", "--out", out)
    assert done.returncode == 2
    assert "pip install 'crack-md[phonons]'" in done.stderr
    assert not out.exists()


def test_modes_of_an_adsorbate_need_no_phonopy(tmp_path: Path):
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "slab.traj", slab)
    options = ["--model", "emt", "--adsorbate-modes", "--out", tmp_path / "out"]
    done = crack_md("phonons", tmp_path / "slab.traj", *options)
    assert done.returncode == 0, done.stderr
    assert "O3 of Cu3O" in done.stdout
    found = json.loads((tmp_path / "out" / "modes.json").read_text())
    assert len(found["frequency_per_cm"]) == 3
    assert found["max_force_eV_per_A"] < 1e-3
    assert found["hessian_asymmetry"] < 1e-4


def test_direct_forces_are_said_to_be_direct(tmp_path: Path):
    save_model(tiny_model(forces="direct"), tmp_path / "direct.pt")
    ase.io.write(tmp_path / "slab.traj", oxygen_slab())
    options = ["--model", tmp_path / "direct.pt", "--adsorbate-modes", "--no-relax"]
    done = crack_md(
        "phonons", tmp_path / "slab.traj", *options, "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("not symmetric, and are symmetrised here") == 1
    found = json.loads((tmp_path / "out" / "modes.json").read_text())
    assert found["hessian_asymmetry"] > 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.cif"], "no such file"),
        (["cu.cif", "--supercell", "2,2"], "cannot read --supercell '2,2'"),
        (["cu.cif", "--displacement", "0"], "displacement_A is 0.0"),
        (["cu.cif", "--adsorbate-modes"], "no adsorbate found"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    copper: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(copper.parent)
    done = crack_md("phonons", *arguments, "--model", "emt")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in copper.parent.iterdir()] == ["cu.cif"]
