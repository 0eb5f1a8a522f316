"""Inputs for DFT, and the way back from results in the formats of three programs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms

from crack_md.errors import DataError
from crack_md.workflows.ranking.dft_codes import kpoints, write_code_input
from crack_md.workflows.ranking.dft_inputs import read_manifest, write_inputs
from crack_md.workflows.ranking.dft_results import read_dft_values
from crack_md.workflows.screening.reader import (
    SavedScreening,
    Structures,
    read_screening,
)
from tests.workflows.ranking.dft_outputs import finish
from tests.workflows.ranking.screenings import run_screening

OUTPUT = {
    "vasp": ("vasprun.xml", "OUTCAR"),
    "espresso": ("espresso.pwo",),
    "gpaw": ("relaxed.traj",),
}


@pytest.fixture(scope="module")
def screening(tmp_path_factory: pytest.TempPathFactory) -> SavedScreening:
    return read_screening(run_screening(tmp_path_factory.mktemp("screened")))


def covered_slab(symbol: str = "Ni") -> Atoms:
    slab = fcc111(symbol, (2, 2, 4), vacuum=7.5, periodic=True)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
    slab.set_tags(0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.set_tags([0] * 16 + [2])
    return slab


@pytest.mark.parametrize(
    ("code", "name"), [(code, name) for code, names in OUTPUT.items() for name in names]
)
def test_results_come_back_as_the_energies_they_are(
    code: str, name: str, screening: SavedScreening, tmp_path: Path
) -> None:
    slabs = [candidate.slab for candidate in screening.candidates]
    written = write_inputs(screening, slabs, code, tmp_path)  # type: ignore[arg-type]
    assert not written.notes
    roles = [calculation.role for calculation in written.new]
    assert roles.count("adsorbed") == roles.count("clean") == len(slabs)
    assert [c.folder for c in written.new[-2:]] == ["gas/H2", "gas/H2O"]
    for calculation in written.new:
        finish(tmp_path, calculation, name)
    values = read_dft_values(tmp_path, screening)
    assert {value.slab for value in values} == set(slabs)
    for value in values:
        assert value.dft_eV == pytest.approx(value.model_eV, abs=3e-4)
        assert value.is_best


def test_only_what_counts_is_taken_and_the_rest_is_named(
    screening: SavedScreening, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slabs = [candidate.slab for candidate in screening.candidates]
    written = write_inputs(screening, slabs, "gpaw", tmp_path)
    adsorbed = [c for c in written.new if c.role == "adsorbed"]
    changes = [{"force": 0.2}, {"moved": 1.0}, {}]
    for calculation in written.new:
        if calculation.role != "adsorbed":
            finish(tmp_path, calculation, "relaxed.traj")
    for calculation, change in zip(adsorbed, changes, strict=False):
        finish(tmp_path, calculation, "relaxed.traj", **change)
    (value,) = read_dft_values(tmp_path, screening)
    assert value.slab == adsorbed[2].name
    told = "\n".join(caplog.messages)
    assert "a force of 0.20 eV/Å is left" in told
    assert "moved 1.0 Å sideways, to another site" in told
    assert f"1 of {len(slabs)} adsorbates have no result yet" in told
    shutil.rmtree(tmp_path / "gas" / "H2O")
    with pytest.raises(DataError, match="none of 4 adsorbates has a usable result"):
        read_dft_values(tmp_path, screening)


def test_an_adsorbate_without_its_structure_is_named(
    screening: SavedScreening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = read_screening(screening.folder).candidates[0]
    (oxygen,) = best.adsorbed
    lost = replace(oxygen, adsorbate="OH")
    both = (replace(best, adsorbed=(oxygen, lost)),)
    monkeypatch.setattr(SavedScreening, "candidates", both)
    stored = Structures.adsorbed
    monkeypatch.setattr(
        Structures,
        "adsorbed",
        lambda self, c, a: None if a is lost else stored(self, c, a),
    )
    fresh = read_screening(screening.folder)
    written = write_inputs(fresh, [best.slab], "gpaw", tmp_path)
    assert written.notes == [f"{best.slab}: results.db does not hold its OH*; left out"]


def test_what_is_there_is_never_written_over(
    screening: SavedScreening, tmp_path: Path
) -> None:
    first, *others = [candidate.slab for candidate in screening.candidates]
    written = write_inputs(screening, [first], "vasp", tmp_path)
    incar = tmp_path / written.new[0].folder / "INCAR"
    incar.write_text("mine")
    again = write_inputs(screening, [first, *others], "vasp", tmp_path)
    assert incar.read_text() == "mine"
    assert again.kept == len(written.new) == 4
    assert len(read_manifest(tmp_path)) == again.kept + len(again.new)
    # of a later run of the screening, in which another slab is in front
    moved = {"slabs": tuple(reversed(screening.slabs)), "sites": screening.sites}
    later = replace(screening, **moved, summary=screening.summary)
    ranks = {row["slab"]: row["rank"] for row in screening.slabs if row["rank"]}
    swapped = dict(zip(ranks, reversed(ranks.values()), strict=True))
    rows = tuple({**row, "rank": swapped.get(row["slab"], "")} for row in later.slabs)
    renamed = replace(later, slabs=rows)
    assert not write_inputs(renamed, [first, *others], "vasp", tmp_path).new
    with pytest.raises(DataError, match="holds inputs for vasp"):
        write_inputs(screening, [first], "gpaw", tmp_path)


def test_folders_are_not_written_over_where_the_manifest_is_lost(
    screening: SavedScreening, tmp_path: Path
) -> None:
    slab = screening.candidates[0].slab
    written = write_inputs(screening, [slab], "vasp", tmp_path)
    incar = tmp_path / written.new[0].folder / "INCAR"
    incar.write_text("mine")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest\.json does not name it"):
        write_inputs(screening, [slab], "vasp", tmp_path)
    assert incar.read_text() == "mine"


@pytest.mark.parametrize("lasts", [0, 1])
def test_a_killed_command_is_run_again(
    screening: SavedScreening,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lasts: int,
) -> None:
    first, other, *_ = [candidate.slab for candidate in screening.candidates]
    mine = write_inputs(screening, [first], "vasp", tmp_path).new[0]
    (tmp_path / mine.folder / "INCAR").write_text("mine")
    calls = []

    def dies(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) > lasts:
            raise KeyboardInterrupt
        write_code_input(*args, **kwargs)  # type: ignore[arg-type]

    place = "crack_md.workflows.ranking.dft_inputs.write_code_input"
    with monkeypatch.context() as patch:
        patch.setattr(place, dies)
        with pytest.raises(KeyboardInterrupt):
            write_inputs(screening, [first, other], "vasp", tmp_path)
    again = write_inputs(screening, [first, other], "vasp", tmp_path)
    assert {calculation.name for calculation in again.new} == {other}
    for folder in read_manifest(tmp_path):
        names = {path.name for path in (tmp_path / folder).iterdir()}
        assert names == {"INCAR", "KPOINTS", "POSCAR", "start.traj"}
    assert (tmp_path / mine.folder / "INCAR").read_text() == "mine"
    assert not (tmp_path / ".unfinished").exists()


def test_a_folder_that_the_manifest_names_and_is_not_there_is_written(
    screening: SavedScreening, tmp_path: Path
) -> None:
    """As after a kill between the manifest and the moves."""
    slab = screening.candidates[0].slab
    written = write_inputs(screening, [slab], "vasp", tmp_path)
    shutil.rmtree(tmp_path / written.new[1].folder)
    again = write_inputs(screening, [slab], "vasp", tmp_path)
    assert again.new == [written.new[1]]
    assert (tmp_path / written.new[1].folder / "POSCAR").is_file()
    assert len(read_manifest(tmp_path)) == len(written.new)


def test_a_lost_start_leaves_out_one_calculation(
    screening: SavedScreening, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slabs = [candidate.slab for candidate in screening.candidates]
    written = write_inputs(screening, slabs, "gpaw", tmp_path)
    for calculation in written.new:
        finish(tmp_path, calculation, "relaxed.traj")
    lost = next(c for c in written.new if c.role == "adsorbed")
    (tmp_path / lost.folder / "start.traj").unlink()
    values = read_dft_values(tmp_path, screening)
    assert lost.name not in {value.slab for value in values}
    assert f"left out: {lost.folder}: cannot read" in caplog.text


def test_a_folder_of_other_things_is_refused(
    screening: SavedScreening, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"holds no manifest\.json; expected a CSV"):
        read_dft_values(tmp_path, screening)
    (tmp_path / "manifest.json").write_text(json.dumps({"code": "vasp"}))
    with pytest.raises(DataError, match="is no list of calculations"):
        read_dft_values(tmp_path, screening)


def test_k_points_are_as_dense_as_said() -> None:
    slab = fcc111("Pt", (2, 2, 4), a=3.98, vacuum=7.5, periodic=True)
    # |b| = 2π/(5.63 Å · sin 60°) = 1.289 1/Å, times 4 is 5.2
    assert kpoints(slab, is_slab=True) == (6, 6, 1)
    assert kpoints(slab.repeat((2, 1, 1)), is_slab=True) == (3, 6, 1)
    assert kpoints(slab, is_slab=False) == (1, 1, 1)


def test_vasp_inputs_hold_what_their_header_says(tmp_path: Path) -> None:
    slab = covered_slab("Ni")
    slab.set_initial_magnetic_moments([1.0] * 16 + [0.0])
    write_code_input("vasp", slab, tmp_path, is_slab=True)
    incar = (tmp_path / "INCAR").read_text()
    assert incar.startswith("# Inputs for VASP")
    assert "POTCAR in each folder" in incar
    given = dict(
        line.strip().split(" = ") for line in incar.splitlines() if " = " in line
    )
    assert given["GGA"] == "RP"
    assert given["ISPIN"] == "2"
    assert given["MAGMOM"].split() == ["16*1.0000", "1*0.0000"]
    assert (given["LDIPOL"], given["IDIPOL"]) == (".TRUE.", "3")
    assert float(given["SIGMA"]) == 0.1
    assert float(given["EDIFFG"]) == -0.03
    assert (tmp_path / "KPOINTS").read_text().split()[-3:] == ["0", "0", "0"]
    assert "6 6 1" in (tmp_path / "KPOINTS").read_text()
    read = ase.io.read(tmp_path / "POSCAR")
    assert isinstance(read, Atoms)
    assert list(read.symbols) == list(slab.symbols)
    assert len(read.constraints[0].get_indices()) == 8


def test_espresso_inputs_are_read_by_ase(tmp_path: Path) -> None:
    slab = covered_slab("Pt")
    write_code_input("espresso", slab, tmp_path, is_slab=True)
    text = (tmp_path / "espresso.pwi").read_text()
    assert text.startswith("! Inputs for Quantum ESPRESSO")
    assert "dipfield         = .true." in text
    assert "nspin" not in text
    assert "Pt.UPF" in text
    emaxpos = float(text.split("emaxpos")[1].split()[1])
    heights = slab.get_scaled_positions()[:, 2]
    assert emaxpos > heights.max() or emaxpos + 0.05 < heights.min()
    read = ase.io.read(tmp_path / "espresso.pwi")
    assert isinstance(read, Atoms)
    assert read.positions == pytest.approx(slab.positions)
    assert len(read.constraints[0].get_indices()) == 8


def test_a_gpaw_script_is_python_and_knows_its_setting(tmp_path: Path) -> None:
    for is_slab in (True, False):
        write_code_input("gpaw", covered_slab("Pt"), tmp_path, is_slab=is_slab)
        script = (tmp_path / "relax.py").read_text()
        compile(script, "relax.py", "exec")
        assert ('{"dipolelayer": "xy"}' in script) is is_slab
        assert 'xc="RPBE"' in script
        assert "spinpol=False" in script
