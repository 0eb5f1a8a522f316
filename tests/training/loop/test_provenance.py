"""What a student says of its making holds no trace of the machine."""

import json
from pathlib import Path

import numpy as np

from crack_md.calculators.crack import node_features, training_statistics
from crack_md.models.checkpoint import load_model
from crack_md.training.config import check_config
from crack_md.training.data.source import read_training_data
from crack_md.training.loop.train import teachers_of, train, without_folders
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


def test_an_exported_student_knows_its_training_data_from_inside(
    dataset: Path, tmp_path: Path
) -> None:
    config = check_config(recipe(dataset, tmp_path / "run"), source="test")
    train(config, quiet=True)

    student = load_model(tmp_path / "run" / "student.pt")

    frames = [one.atoms for one in read_training_data(config).train]
    expected = training_statistics(student, frames)
    found = student.metadata.feature_statistics
    assert found.elements.keys() == expected.elements.keys()
    for number, entry in expected.elements.items():
        assert found.elements[number].n_atoms == entry.n_atoms
        np.testing.assert_allclose(found.elements[number].mean, entry.mean, atol=1e-5)
    features = node_features(student, frames[0])
    assert found.distance(features, frames[0].numbers).max() <= 1.01


def test_labels_and_features_by_two_teachers_are_told_apart() -> None:
    told = {"teacher": "tensornet", "teacher_sha256": "f" * 64}
    assert teachers_of(told) == {
        "teacher": "tensornet",
        "teacher_sha256": "f" * 64,
    }
    told |= {"labels_by": "recipe orr", "labels_by_sha256": "e" * 64}
    assert teachers_of(told) == {
        "teacher": "recipe orr",
        "teacher_sha256": "e" * 64,
        "features_by": "tensornet",
    }
