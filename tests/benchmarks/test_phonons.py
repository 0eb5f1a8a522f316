import copy
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import phonons


@pytest.fixture
def teacher() -> phonons.Table:
    return json.loads(phonons.REFERENCE.read_text())


def test_a_shift_of_all_frequencies_is_the_difference(
    teacher: phonons.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    student = copy.deepcopy(teacher)
    for segment in student["metals"]["Pt"]["bands"]:
        segment["frequency_THz"] = (np.array(segment["frequency_THz"]) - 0.25).tolist()
    rows = phonons.compare(student, teacher)
    assert list(rows) == list(phonons.METALS)
    assert rows["Pt"]["MAD_THz"] == pytest.approx(0.25)
    assert rows["Pt"]["bias_THz"] == pytest.approx(-0.25)
    assert rows["Pt"]["max_difference_THz"] == pytest.approx(0.25)
    assert rows["Cu"]["MAD_THz"] == 0.0
    (tmp_path / "student.json").write_text(json.dumps(student))
    figure = tmp_path / "figure.png"
    phonons.main(["compare", str(tmp_path / "student.json"), "--figure", str(figure)])
    assert figure.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "mean absolute difference 0.050 THz" in printed
    assert "| Pt | 3.981 | 3.981 | 5.31 | 0.250 | -0.250 | 0.250 |" in printed


def test_two_models_have_the_same_points(teacher: phonons.Table, tmp_path: Path):
    pytest.importorskip("phonopy", reason="needs phonopy")
    path = tmp_path / "emt.json"
    phonons.main(["compute", "--model", "emt", "--metals", "Cu", "--table", str(path)])
    rows = phonons.compare(json.loads(path.read_text()), teacher)
    assert list(rows) == ["Cu"]
    assert 0.1 < rows["Cu"]["MAD_THz"] < 1.5
    assert rows["Cu"]["a_student_A"] == pytest.approx(3.59, abs=0.01)
