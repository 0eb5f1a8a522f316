"""Re-scoring, with EMT on what EMT has screened: the numbers must come back."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.optimize import BFGS

from crack_md.errors import CrackError
from crack_md.progress import ProgressEvent
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.ranking.rescore import rescore
from crack_md.workflows.ranking.results import read_rescored
from crack_md.workflows.screening.reader import (
    SavedScreening,
    Structures,
    read_screening,
)
from tests.workflows.ranking.screenings import EMT_MODEL, GASES, run_screening


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_screening(tmp_path_factory.mktemp("screened"))


@pytest.fixture
def screening(folder: Path) -> SavedScreening:
    (folder / "rescored.jsonl").unlink(missing_ok=True)
    return read_screening(folder)


def test_the_same_model_gives_the_same_energies(screening: SavedScreening) -> None:
    found = rescore(screening, EMT(), model=EMT_MODEL, top=9)
    assert len(found) == 4
    for result in found:
        assert result.status == "single_point"
        assert result.dE_eV == pytest.approx(result.screened_eV, abs=2e-4)
        assert result.moved_A == 0.0


def test_missing_gas_energies_are_those_of_the_model(screening: SavedScreening) -> None:
    with_gases = rescore(screening, EMT(), model=EMT_MODEL, top=1)
    other = replace(EMT_MODEL, sha256="other", gas_references={"H2O": 2.2})
    found = rescore(screening, EMT(), model=other, top=1)
    h2 = Atoms("H2", [[0, 0, 0], [0, 0, 0.78]])
    h2.calc = EMT()
    BFGS(h2, logfile=None).run(fmax=0.005)
    shift = float(h2.get_potential_energy()) - GASES["H2"]
    energies = [result[0].dE_eV for result in (with_gases, found)]
    assert energies[0] is not None
    assert energies[1] == pytest.approx(energies[0] + shift, abs=1e-3)


class Adsorption(EMT):
    """An adsorption-energy model: refuses clean slabs, says -1 eV for any other."""

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        super().calculate(atoms, *args, **kwargs)
        assert "O" in atoms.symbols
        self.results["energy"] = -1.0


def test_adsorption_energies_are_taken_as_they_are(screening: SavedScreening) -> None:
    model = ModelInfo("oc20", "oc20", "adsorption")
    found = rescore(screening, Adsorption(), model=model, top=2)
    assert [result.dE_eV for result in found] == [-1.0, -1.0]


class Broken(EMT):
    """Fails on copper."""

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        if "Cu" in atoms.symbols:
            raise CrackError("no\ncopper")
        super().calculate(atoms, *args, **kwargs)


def test_a_failure_is_a_result_and_is_tried_again(screening: SavedScreening) -> None:
    found = {r.slab: r for r in rescore(screening, Broken(), model=EMT_MODEL, top=9)}
    assert found["Cu"].status == "failed"
    assert found["Cu"].error == "CrackError: no copper"
    assert not found["Cu"].is_usable
    assert found["Pt"].is_usable
    again = rescore(screening, EMT(), model=EMT_MODEL, top=9)
    assert all(result.is_usable for result in again)


def test_nothing_is_computed_twice(screening: SavedScreening) -> None:
    first = rescore(screening, EMT(), model=EMT_MODEL, top=2)
    path = screening.folder / "rescored.jsonl"
    path.write_text(path.read_text() + '{"slab": "Pt", "si')  # a run that was killed
    calls: list[str] = []

    class Counting(EMT):
        def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
            calls.append(str(atoms.symbols))
            super().calculate(atoms, *args, **kwargs)

    steps: list[ProgressEvent] = []
    again = rescore(
        screening,
        Counting(),
        model=EMT_MODEL,
        top=3,
        report=steps.append,
    )
    assert again[:2] == first
    assert len(calls) == 2  # covered and clean slab of the third
    assert [(step.done, step.total) for step in steps] == [
        (0, 3),
        (1, 3),
        (2, 3),
        (3, 3),
    ]
    assert len(read_rescored(screening.folder)) == 3


def test_structures_of_doubles_and_of_names_like_numbers(
    screening: SavedScreening,
) -> None:
    """'7' is Pt over again: it is stored once, under the first name."""
    structures = Structures.of(screening)
    named = {candidate.slab: candidate for candidate in screening.candidates}
    first, double = (
        structures.adsorbed(named[name], named[name].adsorbed[0])
        for name in ("Pt", "7")
    )
    assert first is not None
    assert double is not None
    assert np.array_equal(first.positions, double.positions)
    assert first.symbols[-1] == "O"
    clean = structures.clean(named["7"], named["7"].adsorbed[0])
    assert clean is not None
    assert len(clean) == len(first) - 1


def test_of_two_structures_with_one_name_the_key_decides(
    screening: SavedScreening, tmp_path: Path
) -> None:
    """The first slab, stretched, is in the database too, as if it had been before."""
    folder = Path(shutil.copytree(screening.folder, tmp_path / "copy"))
    copied = read_screening(folder)
    best = copied.candidates[0]
    right = Structures.of(copied).adsorbed(best, best.adsorbed[0])
    assert right is not None
    wrong = right.copy()
    wrong.positions[-1, 2] += 0.5
    wrong.calc = SinglePointCalculator(wrong, energy=right.get_potential_energy())
    shown = {"slab": best.slab, "site": best.adsorbed[0].start, "adsorbate": "O"}
    with connect(folder / "results.db") as database:
        for data in ({"record": {"key": "of other settings"}}, {}):
            database.write(wrong, **shown, data=data)
    found = Structures.of(read_screening(folder)).adsorbed(best, best.adsorbed[0])
    assert found is not None
    assert np.array_equal(found.positions, right.positions)


def test_tables_of_earlier_versions_have_no_structures(
    screening: SavedScreening, caplog: pytest.LogCaptureFixture
) -> None:
    """Their columns end where the keys are now; one line says what to do."""
    dropped = ("relaxation_key", "clean_slab_key", "is_best")
    sites = tuple(
        {name: value for name, value in row.items() if name not in dropped}
        for row in screening.sites
    )
    found = rescore(replace(screening, sites=sites), EMT(), model=EMT_MODEL, top=1)
    assert [result.status for result in found] == ["missing"]
    (message,) = caplog.messages
    assert "has no column relaxation_key" in message
    assert "repeats no relaxation" in message


def test_no_database_no_structures(screening: SavedScreening, tmp_path: Path) -> None:
    for name in ("results.csv", "sites.csv", "summary.json"):
        (tmp_path / name).write_bytes((screening.folder / name).read_bytes())
    found = rescore(read_screening(tmp_path), EMT(), model=EMT_MODEL, top=1)
    assert [result.status for result in found] == ["missing"]
    (tmp_path / "results.db").write_text("no database")
    found = rescore(read_screening(tmp_path), EMT(), model=EMT_MODEL, top=1)
    assert [result.status for result in found] == ["missing"]


def test_a_clean_slab_is_computed_once(screening: SavedScreening) -> None:
    """'7' is Pt over again: four covered slabs stand on three clean ones."""
    calls: list[str] = []

    class Counting(EMT):
        def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
            calls.append(str(atoms.symbols))
            super().calculate(atoms, *args, **kwargs)

    rescore(screening, Counting(), model=EMT_MODEL, top=9)
    assert len([symbols for symbols in calls if "O" in symbols]) == 4
    assert len([symbols for symbols in calls if "O" not in symbols]) == 3


def test_a_damaged_row_is_one_result(
    screening: SavedScreening, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Structures.adsorbed

    def damaged(self: Structures, candidate: Any, adsorbed: Any) -> Atoms | None:
        if candidate.slab == "Cu":
            raise KeyError("no such row")
        return whole(self, candidate, adsorbed)

    monkeypatch.setattr(Structures, "adsorbed", damaged)
    found = {r.slab: r for r in rescore(screening, EMT(), model=EMT_MODEL, top=9)}
    assert found["Cu"].status == "failed"
    assert "no such row" in found["Cu"].error
    assert found["Pt"].is_usable
