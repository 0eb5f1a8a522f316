"""Methods whose students choose frames by themselves, with EMT as the teacher."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from crack_md.errors import ConfigError, DataError
from crack_md.files import read_json
from crack_md.study.on_policy import plan_loop
from crack_md.study.plan import Plan, load_study, plan_study
from crack_md.study.study import run_study
from crack_md.training.on_policy.folder import LoopFolder
from tests.study.study_factory import silent
from tests.training.on_policy.loops import loop_tree, write_data

N_FRAMES, BUDGET, STEPS = 9, 5, 7


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def section(data: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return what a loop holds that a study does not set."""
    tree = loop_tree(data, folder)
    for key in ("folder", "student", "data", "train", "check_last"):
        del tree[key]
    return tree | changes


def plan(data: Path, folder: Path, **changes: Any) -> Plan:
    """Return a study of one method, with and without frames of its own."""
    on_policy = section(data, folder, **changes)
    recipe = yaml.safe_load((folder / "student.yaml").read_text())
    recipe["data"] = {"path": str(data), "max_frames": N_FRAMES}
    del recipe["run"]["max_seconds"]
    recipe["run"]["max_steps"] = STEPS
    tree = {
        "base": recipe,
        "methods": {"task": {}, "task+own": {"on_policy": on_policy}},
        "seeds": [3],
        "folder": str(folder / "study"),
        "evaluate": {"path": str(data), "split": "test"},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(tree))
    return plan_study(load_study(path), source=path.name)


def test_it_spends_the_steps_and_labels_of_the_other_methods(
    data: Path, tmp_path: Path
) -> None:
    planned = plan(data, tmp_path)
    run = planned.students[1]
    assert run.loop is not None
    assert run_study(planned, watch=silent()) is None
    result = read_json(run.result_file)
    assert result is not None
    assert result["steps"] == STEPS
    folder = LoopFolder(run.loop.folder)
    first, last = (folder.round(number).record("train") for number in (0, 1))
    assert first is not None
    assert last is not None
    assert (first["steps"], last["steps"]) == (4, 3)
    assert first["n_train"] == N_FRAMES - BUDGET
    assert result["n_own_labels"] == BUDGET
    assert last["n_train"] == N_FRAMES
    assert result["labels"]["all"]["n_frames"] > 0
    table = (planned.study.folder / "table.md").read_text()
    assert "| own labels | quarantined |" in table
    lines = [line for line in table.splitlines() if line.startswith("| task+own | 1/1")]
    assert any(
        line.endswith(f"| {BUDGET} | {result['n_quarantined']} |") for line in lines
    )
    assert "count among the frames of its budget" in " ".join(table.split())


def test_a_finished_run_is_not_repeated(data: Path, tmp_path: Path) -> None:
    planned = plan(data, tmp_path)
    run_study(planned, watch=silent())
    before = planned.students[1].result_file.stat().st_mtime_ns
    again = plan(data, tmp_path)
    run_study(again, watch=silent())
    assert again.students[1].result_file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 7}, "give run.max_steps, and more than 7"),
        ({"rounds": 2}, "the 10 frames .* give more than these, found 9"),
        ({"rounds": 0}, "on_policy: give rounds of 1 or more, and mix.repeats"),
        ({"rounds": "many"}, "on_policy: rounds"),
        ({"mix": {"share": 0.5}}, "a share would count the whole set"),
        ({"seed": 1}, "the study sets on_policy.seed; remove it"),
        ({"train": {"committee": 3}}, "the study sets on_policy.train; remove it"),
        ({"select": {"budget": 0}}, "method task.own, on_policy: select.budget"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    data: Path, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(data, tmp_path, **wrong)


def test_a_missing_screening_is_told_before_anything_is_trained(
    data: Path, tmp_path: Path
) -> None:
    planned = plan(data, tmp_path)
    evaluate = planned.study.evaluate.model_copy(update={"adsorption": tmp_path})
    study = planned.study.model_copy(update={"evaluate": evaluate})
    with pytest.raises(DataError, match="holds no finished screening"):
        run_study(replace(planned, study=study), watch=silent())
    assert not planned.students[0].folder.exists()


def test_a_section_that_is_no_mapping_is_refused(data: Path, tmp_path: Path) -> None:
    config = plan(data, tmp_path).students[0].config
    with pytest.raises(ConfigError, match="expected a mapping, found True"):
        plan_loop(config, True, source="study.yaml")
