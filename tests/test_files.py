import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from crack_md.errors import DataError, describe_unknown_elements
from crack_md.files import (
    claim_folder,
    csv_bytes,
    keep_conditions,
    read_json,
    write_atomically,
    write_json,
)
from crack_md.structures import structure_sha256


def test_one_run_at_a_time(tmp_path: Path):
    folder = tmp_path / "deep" / "out"
    with (
        claim_folder(folder),
        pytest.raises(DataError, match="another run is writing"),
        claim_folder(folder),
    ):
        pass
    with claim_folder(folder):
        pass


def test_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "out").touch()
    with (
        pytest.raises(DataError, match="cannot write to"),
        claim_folder(tmp_path / "out"),
    ):
        pass


def test_conditions_survive_and_differ(tmp_path: Path):
    keep_conditions(tmp_path, {"a": 0.1, "b": [1, 2]}, has_results=False)
    keep_conditions(tmp_path, {"a": 0.1, "b": (1, 2)}, has_results=True)
    other = {"a": 0.2, "b": [1, 2], "c": 3}
    with pytest.raises(DataError, match=r"a 0\.1 \(now 0\.2\), c None \(now 3\)"):
        keep_conditions(tmp_path, other, has_results=True)
    keep_conditions(tmp_path, other, has_results=False)
    assert read_json(tmp_path / "settings.json") == other


def test_files_are_whole_or_absent(tmp_path: Path):
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(DataError, match="cannot write"):
        write_atomically(tmp_path / "absent" / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_and_csv_keep_every_digit(tmp_path: Path):
    write_json(tmp_path / "a.json", {"x": np.arange(2.0) / 3, "name": "Å"})
    assert read_json(tmp_path / "a.json") == {"x": [0.0, 1 / 3], "name": "Å"}
    assert csv_bytes([{"a": 1 / 3, "b": "x"}]) == b"a,b\n0.3333333333333333,x\n"
    (tmp_path / "a.json").write_text(json.dumps({})[:1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    with pytest.raises(DataError, match="damaged"):
        read_json(tmp_path / "a.json")


def test_fingerprint_sees_all_that_moves_atoms():
    atoms = Atoms("CuO", [[0, 0, 0], [0, 0, 2]], cell=[9] * 3, pbc=True)
    known = structure_sha256(atoms)
    assert structure_sha256(atoms.copy()) == known
    changed = [atoms.copy() for _ in range(5)]
    changed[0].positions[1, 2] += 1e-9
    changed[1].set_momenta(np.ones((2, 3)))
    changed[2].set_constraint(FixAtoms([0]))
    changed[3].pbc = False
    changed[4].set_masses([60.0, 16.0])
    assert len({known, *map(structure_sha256, changed)}) == 6


def test_unknown_elements_are_told_in_the_same_words_everywhere() -> None:
    assert describe_unknown_elements(["O", "Pt"], ["H", "O", "Pt"]) == ""
    assert describe_unknown_elements(
        list("CON"), ["Pt", "O"], of=", which CON holds"
    ) == ("the model does not know C, N, which CON holds; it was trained on O, Pt")
    said = describe_unknown_elements(["Fe"], ["O"], by="the teacher emt")
    assert said == "the teacher emt does not know Fe; it was trained on O"
