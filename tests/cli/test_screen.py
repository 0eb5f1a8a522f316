import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.db import connect

GASES = "H2O=2.2,H2=2.5"
BASE = ["--model", "emt", "--fmax", "0.1"]
# a runner without a terminal may have left Ctrl-C ignored for its children
RUN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from crack_md.cli import main; main()"
)


def crack_md(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def slab(metal: str, size: int = 1) -> Atoms:
    atoms = fcc111(metal, (size, size, 3), vacuum=8.0, periodic=True)
    atoms.info.clear()  # extxyz cannot hold what ase.build leaves there
    return atoms


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "slabs.db"
    database = connect(path)
    for metal in ("Pt", "Cu"):
        database.write(slab(metal, 2), name=f"{metal}(111)")
    broken = slab("Au")
    broken.positions[0] = np.nan
    database.write(broken, name="broken")
    database.write(bulk("Au") * (2, 2, 2), name="bulk")
    database.write(fcc111("Fe", (1, 1, 3), a=3.6, vacuum=8.0), name="iron")
    return path


@pytest.fixture(scope="module")
def finished(
    surfaces: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    out = tmp_path_factory.mktemp("finished") / "deep" / "out"
    options = [*BASE, "--gas-reference", GASES, "--out", out, "--json"]
    return crack_md("screen", surfaces, *options), out


def test_json_on_stdout_and_files_beside_it(
    finished: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, out = finished
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["counts"]["slabs"] == {
        "ok": 2,
        "bad_structure": 1,
        "no_surface": 1,
        "unknown_element": 1,
    }
    assert summary["pt111"]["source"] == "'Pt(111)' of the input"
    assert summary["input"]["structures"] == 5
    names = {path.name for path in out.iterdir()}
    assert names == {
        ".lock",
        "results.csv",
        "sites.csv",
        "results.db",
        "summary.json",
        "volcano.png",
        "free_energy.png",
        "report.html",
    }
    for figure in ("volcano.png", "free_energy.png"):
        assert (out / figure).read_bytes().startswith(b"\x89PNG")
    with (out / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["slab"] for row in table[2:]] == ["broken", "bulk", "iron"]
    assert all(row["error"] for row in table[2:])
    platinum = next(row for row in table if row["slab"] == "Pt(111)")
    assert float(platinum["dE_O_vs_Pt111_eV"]) == 0.0


def test_prints_a_ranking_for_people(
    surfaces: Path, finished: tuple[subprocess.CompletedProcess[str], Path]
) -> None:
    """The second run in the same folder has nothing left to relax."""
    options = [*BASE, "--gas-reference", GASES, "--out", finished[1]]
    done = crack_md("screen", surfaces, *options)
    assert done.returncode == 0
    assert "ΔG(O*)" in done.stdout
    assert "bulk: no_surface" in done.stdout
    summary = json.loads((finished[1] / "summary.json").read_text())
    assert summary["counts"]["relaxations_done"] == 0


def test_all_rows_failed_is_exit_code_one(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "bulk.cif", bulk("Cu", cubic=True))
    options = [*BASE, "--gas-reference", GASES, "--out", tmp_path / "out"]
    done = crack_md("screen", tmp_path / "bulk.cif", *options)
    assert done.returncode == 1
    assert "no_surface" in done.stdout
    assert (tmp_path / "out" / "results.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.db", "--gas-reference", GASES], "no such file: 'absent.db'"),
        (["noise.db", "--gas-reference", GASES], "cannot read 'noise.db'"),
        (["empty.extxyz", "--gas-reference", GASES], "empty.extxyz"),
        (["slab.extxyz"], "--gas-reference"),
        (["slab.extxyz", "--gas-reference", "H2O:3"], "cannot read --gas-reference"),
        (["slab.extxyz", "--gas-reference", "H2=1"], "missing: H2O;"),
        (
            ["slab.extxyz", "--gas-reference", GASES, "--adsorbate", "XY2"],
            "unknown adsorbate 'XY2'",
        ),
        (
            ["slab.extxyz", "--gas-reference", GASES, "--adsorbate", "CO:C"],
            "missing: CO;",
        ),
        (
            ["slab.extxyz", "--gas-reference", GASES, "--adsorbate", "OH,F"],
            "no gas-phase reference for F",
        ),
        (["slab.extxyz", "--optimizer", "Newton"], "unknown optimizer 'Newton'"),
        (["slab.extxyz", "--reference", "O2"], "unknown reference 'O2'"),
        (["slab.extxyz", "--corrections", "mine"], "unknown corrections 'mine'"),
        (["slab.extxyz", "--scaling", "mine"], "unknown scaling 'mine'"),
        (["slab.extxyz", "--select", "a=1"], "--select works on ASE databases"),
        (["slab.extxyz", "--terminations"], "--terminations needs --miller"),
        (["slab.extxyz", "--miller", "11"], "cannot read the Miller indices '11'"),
        (
            ["slab.extxyz", "--gas-reference", GASES, "--out", "noise.db"],
            "cannot write to 'noise.db'",
        ),
        (
            ["slab.extxyz", "--gas-reference", GASES, "--model", "absent.pt"],
            "absent.pt",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("noise.db").write_bytes(b"not a database" * 99)
    Path("empty.extxyz").touch()
    ase.io.write("slab.extxyz", slab("Cu"))
    before = sorted(path.name for path in tmp_path.iterdir())
    options = arguments if "--model" in arguments else [*arguments, "--model", "emt"]
    done = crack_md("screen", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_folder_of_bulks_with_two_adsorbates(tmp_path: Path) -> None:
    """Reading, cutting, placing, energetics: the whole way in one command."""
    folder = tmp_path / "bulks"
    folder.mkdir()
    for metal in ("Cu", "Ag"):
        ase.io.write(folder / f"{metal}.cif", bulk(metal))
    ase.io.write(folder / "slab.extxyz", slab("Cu"))
    options = [*BASE, "--gas-reference", GASES, "--out", tmp_path / "out", "--json"]
    options += [
        "--miller",
        "100",
        "--width",
        "2.5",
        "--adsorbate",
        "O,OH",
        "--orientations",
        "1",
    ]
    options += ["--reference", "half-O2", "--scaling", "hansen-2014"]
    done = crack_md("screen", folder, *options)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["counts"]["slabs"] == {"ok": 2, "not_a_bulk": 1}
    assert summary["settings"]["adsorbates"] == ["O", "OH"]
    assert summary["settings"]["scaling"] == "hansen-2014"
    best = summary["ranking"][0]
    assert best["slab"] in ("Cu(100)", "Ag(100)")
    assert best["preparation"].startswith("cut from a bulk")
    assert best["inferred"] == "OOH"
    half = best["dE_O_H2O_H2_eV"] - 2.76
    assert best["dE_O_halfO2_eV"] == pytest.approx(half, abs=2e-4)
    levels = best["free_energies_eV"]
    assert list(levels) == ["O2", "OOH*", "O*", "OH*", "H2O"]
    assert levels["OOH*"] == pytest.approx(levels["OH*"] + 3.16, abs=2e-4)
    assert sum(best["steps_eV"]) == pytest.approx(-4.92, abs=3e-4)
    again = crack_md("screen", folder, *[o for o in options if o != "--json"])
    assert "ΔE against ½O2" in again.stdout
    assert "ΔE(OH*)" in again.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_killed_run_goes_on_to_the_same_table(
    tmp_path: Path,
    surfaces: Path,
    finished: tuple[subprocess.CompletedProcess[str], Path],
    how: signal.Signals,
) -> None:
    out = tmp_path / "out"
    arguments = ["screen", surfaces, *BASE, "--gas-reference", GASES, "--out", out]
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _rows(out / "results.db"):
        time.sleep(0.01)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGKILL), errors
    if how is signal.SIGINT:
        assert errors.strip().endswith("run the same command again to go on")
        assert errors.count("\n") == 1
    assert not (out / "results.csv").exists()
    assert crack_md(*arguments).returncode == 0
    for name in ("results.csv", "sites.csv"):
        assert (out / name).read_bytes() == (finished[1] / name).read_bytes()


def _rows(path: Path) -> int:
    """Return how many rows there are; ase.db would make tables under the run."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from systems").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
