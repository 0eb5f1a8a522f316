"""A screening in which nothing could be screened."""

from pathlib import Path

from ase.build import bulk
from ase.calculators.emt import EMT

import crack_md


def test_nothing_screened_draws_no_volcano(tmp_path: Path) -> None:
    """Not even that of an earlier run stays."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "volcano.png").write_bytes(b"old")
    crystal = bulk("Cu", cubic=True)  # no vacuum: no surface
    gases = {"H2O": 0.0, "H2": 1.5}
    found = crack_md.screen(crystal, EMT(), out=out, gas_energies=gases)
    assert found.summary["counts"]["slabs"] == {"no_surface": 1}
    assert not (out / "volcano.png").exists()
    assert (out / "report.html").is_file()
