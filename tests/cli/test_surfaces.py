from pathlib import Path

from ase.db import connect

from tests.cli.commands import crack_md


def test_slabs_of_alloys_that_screen_takes_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "slabs.db"
    options = ["--elements", "Pt,Ni", "--structures", "pure,skin", "--model", "emt"]
    done = crack_md("surfaces", *options, "--out", path)
    assert done.returncode == 0, done.stderr
    assert "4 slabs written to" in done.stdout
    assert "Pt3Ni(111) Pt skin" in done.stdout
    assert "seed" not in done.stdout  # nothing was drawn
    assert len(connect(path)) == 4
    again = crack_md("surfaces", *options, "--out", path)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    screened = crack_md(
        *("screen", path, "--model", "emt", "--gas-reference", "H2O=0,H2=1.5"),
        *("--max-sites", "1", "--select", "structure=pure", "--fmax", "0.2"),
        *("--out", tmp_path / "screened"),
    )
    assert screened.returncode == 0, screened.stderr
    table = (tmp_path / "screened" / "results.csv").read_text()
    assert "Pt(111)" in table
    assert "lattice_constant_A" in table


def test_nothing_to_make_and_nothing_made(tmp_path: Path) -> None:
    out = ["--out", tmp_path / "x.db", "--model", "emt"]
    nothing = crack_md("surfaces", *out)
    assert nothing.returncode == 2
    assert "nothing to make: give elements" in nothing.stderr
    unknown = crack_md("surfaces", "--elements", "Fe", "--structures", "pure", *out)
    assert unknown.returncode == 1
    assert "Fe: not_built: the model does not know Fe" in unknown.stdout
    assert not (tmp_path / "x.db").exists()
