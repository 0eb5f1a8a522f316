"""Every architecture learns from crack, n2n and labels at once."""

from pathlib import Path

import pytest
import yaml

from crack_md.errors import ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.training.config import TrainConfig, check_config, dump_config, load_config
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.training.factories import TINY, recipe

STUDENTS = {
    "ace": {"name": "ace", "cutoff": 4.0, "channels": 8, "hidden_channels": 16},
    "painn": {"name": "painn", "cutoff": 4.0, "channels": 16},
    "equiformer_v2": TINY
    | {"forces": "gradient", "ffn": "gate", "reflections": True, "short_range": "zbl"},
}
CONFIGS = Path(__file__).parents[2] / "configs"


def config_of(dataset: Path, folder: Path, name: str) -> TrainConfig:
    tree = recipe(dataset, folder, max_steps=40, batch_size=8)  # all frames
    tree["student"]["architecture"] = STUDENTS[name]
    tree["optimizer"]["ema_decay"] = 0.9
    return check_config(tree, source="test")


@pytest.mark.parametrize("name", list(STUDENTS))
def test_training_brings_every_loss_down(
    dataset: Path, tmp_path: Path, name: str
) -> None:
    train(config_of(dataset, tmp_path / "run", name), quiet=True)
    rows = [row for row in RunFolder(tmp_path / "run").metrics() if "loss" in row]
    for term in ("crack", "n2n", "output_forces"):
        values = [row[term] for row in rows]
        assert sum(values[-5:]) < 0.97 * sum(values[:5]), term
    losses = [row["loss"] for row in rows]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    model = load_model(tmp_path / "run" / "student.pt")
    assert model.network.config.name == name
    assert model.network.config.short_range == "zbl"
    assert model.metadata.shortest_distances.pairs.keys() == {
        (29, 29),
        (29, 79),
        (79, 79),
    }


@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_resolved_recipe_is_the_same_recipe(
    dataset: Path, tmp_path: Path, name: str
) -> None:
    config = config_of(dataset, tmp_path, name)
    again = check_config(yaml.safe_load(dump_config(config)), source="again")
    assert again == config
    assert yaml.safe_load(dump_config(again))["student"]["architecture"]["name"] == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gnn"}, "expected one of equiformer_v2, ace, painn"),
        ({"chanels": 8}, r"student\.architecture\.chanels: Unexpected"),
        ({"channels": 0}, "channels is 0; expected 1 to"),
        ({"channels": "many"}, r"student\.architecture\.channels: .*integer"),
        ({"cutoff": 1e9}, "cutoff is 1000000000.0; expected 0.5 to 50"),
        ({"forces": "direct"}, r"student\.architecture\.forces: .*'gradient'"),
    ],
)
def test_wrong_choices_are_one_line(
    dataset: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    tree = recipe(dataset, tmp_path)
    tree["student"]["architecture"] = STUDENTS["ace"] | change
    with pytest.raises(ConfigError, match=message) as caught:
        check_config(tree, source="test")
    assert "\n" not in str(caught.value)


def test_degrees_that_the_features_lack_are_refused(
    dataset: Path, tmp_path: Path
) -> None:
    tree = recipe(dataset, tmp_path)
    tree["student"]["architecture"] = STUDENTS["painn"]
    tree["losses"][0]["degrees"] = [1]
    with pytest.raises(ConfigError, match=r"degrees go up to 1, but .* go up to 0"):
        check_config(tree, source="test")


@pytest.mark.parametrize(
    "recipe_name",
    ["student_ace.yaml", "student_painn.yaml", "student_equiformer.yaml"],
)
def test_recipes_of_students_can_be_read(recipe_name: str) -> None:
    config = load_config(CONFIGS / recipe_name)
    assert config.student.architecture.short_range == "zbl"
    assert config.run.max_steps
    assert config.run.max_seconds is None
