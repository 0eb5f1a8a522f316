import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration import honesty, main


def shifted(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return energies that differ by 0.4 eV and normal noise of 0.1 eV."""
    random = np.random.default_rng(0)
    model = random.uniform(0.5, 2.5, n)
    return model, model + 0.4 + random.normal(0.0, 0.1, n)


def test_of_normal_noise_intervals_hold_what_they_say() -> None:
    found = honesty(*shifted(2000), n=3, draws=400)
    assert found.covered == pytest.approx(0.95, abs=0.015)
    # s is near 0.1 eV: the median of √(χ²₂/2) is √(ln 2), t is 4.30
    expected = 4.303 * 0.1 * np.sqrt(np.log(2)) * np.sqrt(4 / 3)
    assert found.half_width_eV == pytest.approx(expected, rel=0.1)
    assert found.mean_error_eV == pytest.approx(
        0.1 * np.sqrt(2 / np.pi) * np.sqrt(4 / 3), rel=0.05
    )


def test_prints_a_line_for_each_handful(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, dft = shifted(21)
    values = [{"model": m, "dft": d} for m, d in zip(model, dft, strict=True)]
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"gpaw": {"values": values}}))
    main([str(path), "--draws", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "20 alloys, 5 draws"  # the first value is Pt(111) alone
    assert [int(line.split()[0]) for line in lines[2:]] == [1, 2, 3, 4, 6, 8, 12]
