"""``crack-md rank`` and ``crack-md report`` as a user calls them."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from crack_md.cli import main
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import ModelMetadata
from crack_md.workflows.ranking.dft_inputs import read_manifest
from crack_md.workflows.ranking.results import read_rescored
from tests.factories import tiny_model
from tests.workflows.ranking.dft_outputs import finish
from tests.workflows.ranking.screenings import run_screening, write_csv, write_screening


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_screening(tmp_path_factory.mktemp("screened"))


@pytest.fixture
def folder(screened: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(screened, tmp_path / "results"))


class Crack:
    """The command line, with what it printed."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Return exit code, output and error output of one command."""
        self.monkeypatch.setattr("sys.argv", ["crack-md", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = self.capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture
def crack(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Crack:
    return Crack(monkeypatch, capsys)


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "ranking.csv").open() as file:
        return {row["slab"]: row for row in csv.DictReader(file)}


def interval(row: dict[str, str]) -> float:
    return float(row["dE_O_interval_high_eV"]) - float(row["dE_O_interval_low_eV"])


def test_prints_a_table_and_writes_two_files(crack: Crack, tmp_path: Path) -> None:
    write_screening(tmp_path)
    code, out, _ = crack("rank", tmp_path, "--top", 2)
    assert code == 0
    assert "P(top 2)" in out
    assert "errors of O* are assumed: 0.12 eV for each slab and 0.10 eV common" in out
    assert "look at" in out
    rows = table(tmp_path)
    assert list(rows) == ["Pt3Ni(111)", "Pt(111)", "Pd(111)", "Au(111)"]
    told = json.loads((tmp_path / "ranking.json").read_text())
    assert told["settings"]["top"] == 2
    assert not (tmp_path / "report.html").exists()


def test_json_on_stdout_and_given_errors(crack: Crack, tmp_path: Path) -> None:
    write_screening(tmp_path)
    given = ["--error", 0.03, "--shared-error", 0.04, "--level", 0.9]
    code, out, _ = crack("rank", tmp_path, "--json", *given)
    assert code == 0
    told = json.loads(out)
    assert told == json.loads((tmp_path / "ranking.json").read_text())
    assert told["settings"]["assumed"]["source"] == "given by hand"
    first = told["slabs"][0]["energies"][0]
    half = 1.6448536 * 0.05
    assert first["dG_high_eV"] - first["dG_eV"] == pytest.approx(half, abs=1e-6)


def test_dft_values_correct_and_the_report_is_renewed(
    crack: Crack, folder: Path, tmp_path: Path
) -> None:
    code, out, _ = crack("report", folder)
    assert (code, out) == (0, f"written to {folder / 'report.html'}\n")
    before = (folder / "report.html").read_text()
    screened = json.loads((folder / "summary.json").read_text())["ranking"]
    energies = {r["slab"]: r["dE_O_H2O_H2_eV"] for r in screened if "rank" in r}
    rows = [{"slab": name, "dE": energies[name] - 0.3} for name in ("Pt", "Cu")]
    dft = write_csv(tmp_path / "dft.csv", rows)
    code, out, _ = crack("rank", folder, "--calibrate", dft)
    assert code == 0
    assert "O* corrected by DFT: E = x - 0.300 eV, from 2 values" in " ".join(
        out.split()
    )
    assert "† by DFT" in out
    palladium = table(folder)["Pd"]
    shift = float(palladium["dE_O_eV"]) - float(palladium["dE_O_screened_eV"])
    assert shift == pytest.approx(-0.3, abs=2e-4)
    after = (folder / "report.html").read_text()
    assert after != before
    assert "P(best)" in after


def test_another_model_scores_the_best_again(crack: Crack, folder: Path) -> None:
    code, out, _ = crack("rank", folder, "--rescore", "emt", "--top", 2)
    assert code == 0, out
    assert "* by emt" in out
    sources = [row["O_source"] for row in table(folder).values()]
    assert sorted(sources) == ["emt", "emt", "model", "model"]
    stored = (folder / "rescored.jsonl").read_text().split()
    crack("rank", folder, "--rescore", "emt", "--top", 2)
    assert (folder / "rescored.jsonl").read_text().split() == stored  # nothing anew


def test_a_model_file_may_be_named_as_a_teacher(
    crack: Crack, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.pt"
    metadata = ModelMetadata("total", (1, 8, 29, 46, 78))
    save_model(tiny_model(metadata=metadata, forces="direct"), path)
    found = []
    for name in (f"eqv2:{path}", str(path)):
        (folder / "rescored.jsonl").unlink(missing_ok=True)
        code, _, err = crack("rank", folder, "--rescore", name, "--top", 1)
        assert code == 0, err
        (result,) = read_rescored(folder)
        assert result.status == "single_point"
        found.append((result.dE_eV, result.sha256))
    assert found[0] == found[1]


def test_a_committee_widens_intervals(crack: Crack, folder: Path) -> None:
    crack("rank", folder)
    before = table(folder)
    # EMT with its own gas energies disagrees with the 2.2 and 2.5 eV of the screening
    code, out, _ = crack("rank", folder, "--committee", "emt")
    assert code == 0
    assert "and the spread of the committee" in " ".join(out.split())
    for name, row in table(folder).items():
        assert interval(row) > interval(before[name]) + 0.01


def test_a_correction_that_does_not_help_says_so(crack: Crack, tmp_path: Path) -> None:
    energies = {"A": 1.0, "B": 1.5, "C": 2.0, "D": 2.5}
    write_screening(tmp_path, energies)
    noise = {"A": 0.1, "B": -0.1, "C": 0.1, "D": -0.1}
    rows = [{"slab": n, "dE": dE + noise[n]} for n, dE in energies.items()]
    dft = write_csv(tmp_path / "dft.csv", rows)
    _, out, _ = crack("rank", tmp_path, "--calibrate", dft)
    assert "DOES NOT HELP" in " ".join(out.split())
    _, out, _ = crack("rank", tmp_path, "--calibrate", dft, "--correction", "none")
    assert "none, errors measured, from 4 values" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rank", "absent"], "'absent' holds no finished screening"),
        (["report", "absent"], "'absent' holds no finished screening"),
        (["rank", "FOLDER", "--calibrate", "absent.csv"], "no such file: 'absent.csv'"),
        (["rank", "FOLDER", "--rescore", "nequix:absent.nqx"], "absent.nqx"),
        (["rank", "FOLDER", "--rescore", "absent.pt"], "absent.pt"),
    ],
)
def test_unusable_input_is_one_line(
    crack: Crack, tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder = str(write_screening(tmp_path))
    code, _, err = crack(*(folder if a == "FOLDER" else a for a in arguments))
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "ranking.csv").exists()


def test_inputs_for_dft_and_their_results(crack: Crack, folder: Path) -> None:
    code, out, err = crack("rank", folder, "--top", 2, "--write", "gpaw", "--json")
    assert code == 0
    json.loads(out)  # what was written is told on stderr
    place = folder / "dft-gpaw"
    assert f"6 calculations written to {place}/" in err
    assert "You supply: the PAW setups" in err
    code, _, err = crack("rank", folder, "--calibrate", place)
    assert code == 2
    assert "none of 2 adsorbates has a usable result" in err
    for calculation in read_manifest(place).values():
        finish(place, calculation, "relaxed.traj")
    code, out, _ = crack("rank", folder, "--calibrate", place, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["calibrated_with"] == str(place)
    assert len(told["reference_values"]) == 2
    assert [row["energies"][0]["source"] for row in told["slabs"]].count("DFT") == 2
