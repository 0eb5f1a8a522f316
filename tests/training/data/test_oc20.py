"""The recipes for OC20 are the paper's, and run from the files as published."""

from pathlib import Path

import pytest
import torch

from crack_md.data.prepare.oc20 import OC20Choice, prepare_oc20
from crack_md.data.prepare.splits import SplitPlan
from crack_md.errors import ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.models.equiformer.equiformer_v2 import EquiformerV2
from crack_md.training.config import TrainConfig, load_config
from crack_md.training.data.source import TrainingData, read_training_data
from crack_md.training.loop.build import build_student
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.oc20_files import frame, relaxation, write_relaxations, write_s2ef
from tests.public_files import TINY

CONFIGS = Path(__file__).parents[3] / "configs"
SIZES = ("sphere_channels", "attn_hidden_channels", "num_heads", "attn_alpha_channels")
SIZES += ("attn_value_channels", "ffn_hidden_channels", "lmax", "mmax")
SIZES += ("grid_resolution", "edge_channels", "num_distance_basis")


@pytest.mark.parametrize("name", ["oc20_ostar", "oc20_200k"])
def test_the_settings_are_those_of_the_paper(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    with torch.device("meta"):
        network = EquiformerV2(config.student.architecture)
    assert sum(weights.numel() for weights in network.parameters()) == 22_279_682
    rule = config.student.architecture.rule
    assert (rule.cutoff, config.student.architecture.max_neighbors) == (12.0, 20)
    assert config.student.architecture.forces == "direct"
    crack, n2n, task = config.losses
    assert (crack.kind, crack.weight, crack.temperature) == ("crack", 10.0, 0.15)
    assert (n2n.kind, n2n.weight) == ("n2n", 1.0)
    assert (task.kind, task.energy_weight, task.force_weight) == ("task", 4.0, 100.0)
    assert task.sigma_eV == pytest.approx(2.887317, abs=1e-6)
    assert (config.optimizer.lr, config.optimizer.warmup_steps) == (5e-4, 30_000)
    assert config.run.batch_size == 4
    assert config.data.path.name == f"{name}.aselmdb"
    assert config.run.folder.name == name


def downloaded(folder: Path, name: str) -> Path:
    """Return a small download of the kind that a recipe is made for."""
    if name == "oc20_200k":
        pairs = [(f"random{number}", frame(number)) for number in range(10)]
        return write_s2ef(folder / "s2ef_train_200K", [pairs[:5], pairs[5:]])
    relaxations = {f"random{number}": relaxation(number) for number in range(5)}
    return write_relaxations(folder / "0.tar", relaxations)


def prepared(folder: Path, name: str) -> TrainConfig:
    """Return the recipe for a small download and the tiny public checkpoint."""
    data = folder / f"{name}.aselmdb"
    choice = OC20Choice(splits=SplitPlan(val=0.3, test=0.0, seed=1))
    counts = prepare_oc20([downloaded(folder, name)], data, choice)
    assert min(counts.frames.values()) >= 2
    teacher = load_model(TINY).network.config
    sizes = [f"student.architecture.{key}={getattr(teacher, key)}" for key in SIZES]
    return load_config(
        CONFIGS / f"{name}.yaml",
        [
            *sizes,
            f"student.init_from={TINY}",
            f"teacher.spec=eqv2:{TINY}",
            f"data.path={data}",
            f"data.store={folder / 'store'}",
            f"run.folder={folder / 'run'}",
            "run.max_steps=2",
            "run.log_every=1",
            "run.accelerator=cpu",
        ],
    )


@pytest.mark.parametrize("name", ["oc20_ostar", "oc20_200k"])
def test_from_a_download_and_a_public_checkpoint_to_a_student(
    tmp_path: Path, name: str
) -> None:
    summary = train(prepared(tmp_path, name), quiet=True)

    assert summary.stopped_by is None
    student = load_model(tmp_path / "run" / "student.pt")
    assert student.metadata.energy_reference == "adsorption"
    assert student.forces == "direct"
    assert student.metadata.provenance["teacher"] == TINY.stem
    assert student.scale.std == load_model(TINY).scale.std
    records = RunFolder(tmp_path / "run").metrics()
    steps = [record for record in records if "crack" in record]
    assert len(steps) == 2
    assert all(record["n2n"] > 0 for record in steps)


def test_a_student_begins_with_embeddings_and_force_head_of_a_public_checkpoint(
    tmp_path: Path,
) -> None:
    config = prepared(tmp_path, "oc20_200k")
    data: TrainingData = read_training_data(config)
    ours = build_student(config.student, data).network.state_dict()
    theirs = load_model(TINY).network.state_dict()
    shared = ("sphere_embedding.", "edge_degree_embedding.", "force_block.")
    equal = {key: torch.equal(ours[key], theirs[key]) for key in ours & theirs.keys()}
    assert all(equal[key] for key in equal if key.startswith(shared))
    new = [k for k in equal if k.startswith("blocks.") and ours[k].dim() > 1]
    assert new
    assert not any(equal[key] for key in new if ours[key].std() > 0)


@pytest.mark.parametrize("name", ["oc20_ostar", "oc20_200k"])
def test_recipes_are_those_of_the_paper_on_as_many_devices_as_docs_say(
    name: str,
) -> None:
    """Algorithm 1 contrasts over the batch, which four devices share."""
    path = CONFIGS / f"{name}.yaml"
    recipe = load_config(path, ["run.devices=4"])
    crack = next(loss for loss in recipe.losses if loss.kind == "crack")
    assert crack.negatives == "global"
    assert "run.devices=4" in (CONFIGS.parent / "docs" / "oc20.md").read_text()
    with pytest.raises(ConfigError, match="parts would be empty"):
        load_config(path, ["run.devices=8"])
