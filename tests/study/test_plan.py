"""What a study file means, and what is wrong with one."""

from pathlib import Path
from typing import Any

import pytest

from crack_md.errors import ConfigError
from crack_md.study.plan import load_study, merge, plan_study
from tests.study.study_factory import TASK, plan_of, study_file, study_tree

DATA = Path("small.aselmdb")


def test_mappings_are_merged_and_lists_replaced() -> None:
    base = {"run": {"seed": 1, "batch_size": 4}, "losses": [1, 2], "teacher": None}
    found = merge(base, {"run": {"seed": 2}, "losses": [3], "teacher": {"kind": "x"}})
    assert found == {
        "run": {"seed": 2, "batch_size": 4},
        "losses": [3],
        "teacher": {"kind": "x"},
    }
    assert base["run"] == {"seed": 1, "batch_size": 4}


def test_every_method_meets_every_seed_and_budget(tmp_path: Path) -> None:
    budgets = [{"max_steps": 3}, {"max_steps": 9, "max_frames": 5}]
    plan = plan_of(DATA, tmp_path, budgets=budgets)
    assert plan.methods == ("vanilla", "crack+task")
    assert plan.budgets == ("3-steps", "9-steps-5-frames")
    assert len(plan.runs) == 8
    # seed by seed: a study that is cut short still compares all methods
    assert [run.seed for run in plan.students] == [1] * 4 + [2] * 4
    last = plan.students[-1]
    assert last.folder == tmp_path / "crack+task" / "9-steps-5-frames" / "seed-2"
    assert last.config.run.seed == 2
    assert last.config.data.max_frames == 5
    assert [loss.kind for loss in last.config.losses] == ["crack", "task"]


def test_a_budget_of_seconds_takes_the_place_of_one_of_steps(tmp_path: Path) -> None:
    plan = plan_of(DATA, tmp_path, budgets=[{"max_seconds": 2.5}])
    assert plan.budgets == ("2.5-s",)
    assert plan.students[0].config.run.max_steps is None


def test_files_lie_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "plain.yaml").write_text(f"losses: [{TASK}]")
    tree = study_tree(DATA, tmp_path, methods=["parts/plain.yaml"])
    plan = plan_study(load_study(study_file(tree, tmp_path)))
    assert plan.methods == ("plain",)
    named = study_tree(DATA, tmp_path, methods={"x": "parts/plain.yaml"})
    assert plan_study(load_study(study_file(named, tmp_path))).methods == ("x",)
    both = ["parts/plain.yaml", {"optimizer": {"lr": 1.0}}]
    joined = study_tree(DATA, tmp_path, methods={"x": both})
    run = plan_study(load_study(study_file(joined, tmp_path))).students[0]
    assert run.config.losses[0].kind == "task"
    assert run.config.optimizer.lr == 1.0


def test_overrides_reach_into_base_and_methods(tmp_path: Path) -> None:
    path = study_file(study_tree(DATA, tmp_path), tmp_path)
    changes = ["seeds=[7]", "base.run.max_steps=1", "methods.vanilla.losses.0.weight=1"]
    study = load_study(path, changes)
    assert study.seeds == (7,)
    assert study.base["run"]["max_steps"] == 1
    assert study.methods["vanilla"]["losses"][0]["weight"] == 1


def test_only_chooses_methods(tmp_path: Path) -> None:
    study = load_study(study_file(study_tree(DATA, tmp_path), tmp_path))
    assert plan_study(study, only=["vanilla"]).methods == ("vanilla",)
    with pytest.raises(ConfigError, match="no method 'n2n'; it has vanilla"):
        plan_study(study, only=["n2n"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [1]}, r"study\.yaml: sedes: Extra inputs"),
        ({"seeds": [1, 1]}, "seeds: Value error, a seed occurs twice"),
        ({"methods": {"a/b": {}}}, "'a/b' is no method name"),
        ({"methods": {"a": "none.yaml"}}, r"methods\.a: .*none\.yaml: no such file"),
        (
            {"methods": {"a": 3}},
            r"methods\.a: expected a YAML file, a mapping or a list",
        ),
        ({"methods": "crack"}, "methods: expected names with files or changes"),
        ({"methods": {}}, "methods: Dictionary should have at least 1 item"),
        ({"base": "none.yaml"}, r"base: .*none\.yaml: no such file"),
        ({"budgets": [{}]}, "give max_steps, max_seconds or max_frames"),
        ({"reference": "n2n"}, "reference 'n2n' is none of the methods"),
        ({"evaluate": {"path": "x", "split": "tset"}}, "evaluate.split: Input should"),
    ],
)
def test_mistakes_name_file_and_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(DATA, tmp_path, **changes)


def test_a_wrong_recipe_names_the_method(tmp_path: Path) -> None:
    methods = {"fine": {}, "bad": {"optimizer": {"learning_rate": 1.0}}}
    expected = r"study\.yaml, method bad: optimizer\.learning_rate: Extra inputs"
    with pytest.raises(ConfigError, match=expected):
        plan_of(DATA, tmp_path, methods=methods)


def test_parts_need_something_to_come_from(tmp_path: Path) -> None:
    methods = {"pretrained": {"student": {"init_parts": ["blocks"]}}}
    with pytest.raises(ConfigError, match="init_parts are copied from init_from"):
        plan_of(DATA, tmp_path, methods=methods)
