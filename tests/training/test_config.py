"""The YAML page: strict keys, overrides, and one line for every mistake."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml

from crack_md.errors import ConfigError
from crack_md.training.config import check_config, dump_config, load_config
from crack_md.training.loop.build import build_sampler

PAGE = """
student: {architecture: {num_layers: 1, lmax: 1, mmax: 1}}
data: {path: train.aselmdb}
losses:
  - {kind: crack, weight: 10, temperature: 0.15}
  - {kind: task, energy_weight: 4, force_weight: 100}
optimizer: {lr: 5e-4}
run: {folder: runs/one, batch_size: 4, max_steps: 10}
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.yaml"
    path.write_text(PAGE)
    return path


def test_page_is_read_with_its_defaults(page: Path) -> None:
    config = load_config(page)
    assert config.optimizer.lr == 5e-4
    assert config.losses[0].anchor == "teacher"
    assert config.student.architecture.lmax == 1
    assert config.needs_features
    assert config.needs_teacher


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        ({"kind": "task", "energy_weight": 1, "force_weight": 1}, None),
        ({"kind": "output", "energy_weight": 1, "force_weight": 1}, "energy"),
        ({"kind": "n2n", "weight": 1}, "node_features"),
        ({"kind": "instance", "weight": 1, "temperature": 1}, "node_features"),
        ({"kind": "node_energy", "weight": 1}, "node_energy"),
        ({"kind": "triplet", "weight": 1}, "node_features"),
        ({"kind": "hessian", "weight": 1}, "jacobian"),
    ],
)
def test_losses_say_what_they_read(page: Path, loss: object, label: str) -> None:
    config = load_config(page, [f"losses={json.dumps([loss])}"])
    assert config.needs_teacher == (label is not None)
    assert config.needs_features == (label == "node_features")
    for other in ("node_energy", "jacobian"):
        assert config.needs(other) == (label == other)


def test_overrides_reach_nested_keys_and_lists(page: Path) -> None:
    config = load_config(
        page,
        [
            "optimizer.lr=1e-4",
            "losses.0.temperature=0.05",
            "student.architecture.activation=gate",
            "run.max_seconds=60",
            "student.init_from=null",
        ],
    )
    assert config.optimizer.lr == 1e-4
    assert config.losses[0].temperature == 0.05
    assert config.student.architecture.activation == "gate"
    assert config.run.max_seconds == 60.0


def test_dump_reads_back_as_the_same_configuration(page: Path) -> None:
    config = load_config(page)
    again = check_config(yaml.safe_load(dump_config(config)), source="dump")
    assert again == config
    assert "weight_decay: 0.001" in dump_config(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("losses.0.temprature=0.1", r"losses\.0\.crack\.temprature: Extra inputs"),
        ("student.architecture.lmx=3", r"student\.architecture\.lmx: Unexpected"),
        ("optimizer.lr=fast", r"optimizer\.lr: .*number.*\(found 'fast'\)"),
        ("losses.0.kind=cracked", r"losses\.0: .*'cracked'"),
        ("run.batch_size=0", r"run\.batch_size: .*greater than or equal to 1"),
        ("run.accumulate=5", r"run: .*batch_size 4 is less than .* = 5"),
        ("run.batch_size=null", r"run: .*either batch_size or atoms_per_batch"),
        ("run.atoms_per_batch=9", r"run: .*either batch_size or atoms_per_batch"),
        (
            "losses.0={kind: crack, weight: 1, temperature: 1, degrees: [0, 1], "
            "negatives: global}",
            "degrees above 0 turn with their structure",
        ),
        (
            "losses.0.sample=1",
            r"losses\.0\.crack\.sample: .*greater than or equal to 2",
        ),
        ("losses.0.pairs=some", r"losses\.0\.crack\.pairs: .*'unique' or 'directed'"),
        ("run.max_steps=null", r"run: .*max_steps, max_seconds or both"),
        ("optimizer", r"--set optimizer: expected section\.key=value"),
        ("losses.7.weight=1", r"there is no place 'losses\.7\.weight'"),
        ("data.path.name=x", r"there is no place 'data\.path\.name'"),
        ("data.path=[", "not valid YAML"),
    ],
)
def test_mistakes_are_one_line_with_the_path(
    page: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(page, [override])
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "student: 3"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "refused"),
    [
        ({"kind": "crack", "temperature": 1, "negatives": "global"}, True),
        ({"kind": "instance", "temperature": 1, "negatives": "global"}, True),
        ({"kind": "node_energy", "per_element_shift": True}, True),
        ({"kind": "node_energy"}, False),
        ({"kind": "crack", "temperature": 1}, False),
    ],
)
def test_parts_of_a_batch_do_not_see_each_other(
    page: Path, loss: dict[str, object], refused: bool
) -> None:
    settings = [f"losses={json.dumps([loss | {'weight': 1}])}", "run.devices=2"]
    load_config(page, settings)
    if not refused:
        load_config(page, [*settings, "run.accumulate=2"])
        return
    with pytest.raises(
        ConfigError, match=rf"losses\.0 \({loss['kind']}\) compares all"
    ):
        load_config(page, [*settings, "run.accumulate=2"])


def test_atoms_take_the_place_of_structures(page: Path) -> None:
    config = load_config(page, ["run.batch_size=null", "run.atoms_per_batch=400"])
    assert (config.run.batch_size, config.run.atoms_per_batch) == (None, 400)
    sampler = build_sampler(config.run, torch.full((100,), 20))
    assert len(sampler(0)) == 20
    assert len(build_sampler(load_config(page).run, torch.full((100,), 20))(0)) == 4


def test_left_out_elements_are_real_ones(page: Path) -> None:
    config = load_config(page, ["data.leave_out=[Ni, Co-O]"])
    assert config.data.leave_out == ("Ni", "Co-O")
    with pytest.raises(ConfigError, match=r"data\.leave_out: .*'Nix' in 'Nix-O'"):
        load_config(page, ["data.leave_out=[Nix-O]"])


@pytest.mark.parametrize("name", ["tiny", "student_direct", "student_gradient"])
def test_recipes_of_the_repository_are_valid(name: str) -> None:
    config = load_config(Path(__file__).parents[2] / "configs" / f"{name}.yaml")
    assert config.needs_features


def test_a_configuration_can_be_sent_to_a_worker(page: Path) -> None:
    config = load_config(page)
    assert pickle.loads(pickle.dumps(config)) == config
