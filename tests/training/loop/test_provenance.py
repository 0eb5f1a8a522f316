"""What a student says of its making holds no trace of the machine."""

import json
from pathlib import Path

from crack_md.models.checkpoint import load_model
from crack_md.training.config import check_config
from crack_md.training.loop.train import train, without_folders
from tests.training.factories import recipe


def test_file_names_take_the_place_of_paths() -> None:
    tree = {
        "data": {"path": "/home/me/data/train.aselmdb", "validation": None},
        "teacher": {"kind": "online", "spec": "nequix:/home/me/oam.nqx"},
        "losses": [{"kind": "n2n", "weight": 1.0}],
        "run": {"folder": "runs/student"},
    }
    assert without_folders(tree) == {
        "data": {"path": "train.aselmdb", "validation": None},
        "teacher": {"kind": "online", "spec": "nequix:oam.nqx"},
        "losses": [{"kind": "n2n", "weight": 1.0}],
        "run": {"folder": "student"},
    }


def test_an_exported_student_names_no_folder(dataset: Path, tmp_path: Path) -> None:
    train(check_config(recipe(dataset, tmp_path / "run"), source="test"), quiet=True)

    told = load_model(tmp_path / "run" / "student.pt").metadata.provenance

    assert str(tmp_path) not in json.dumps(told, default=str)
    assert told["config"]["data"]["path"] == dataset.name
    assert told["data"]["path"] == dataset.name
