"""The recipes of the repository: each loads, merges into a study, and trains."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from crack_md.data.labelling import LabelRequest, label_structures
from crack_md.errors import ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.study.perform import DataCache
from crack_md.study.plan import Plan, load_study, plan_study
from crack_md.study.study import run_study
from crack_md.study.summary import summarize_study
from crack_md.training.config import TrainConfig
from crack_md.training.loop.build import build_student, copy_matching_weights
from crack_md.training.loop.train import train
from tests.factories import tiny_model
from tests.study.study_factory import plan_of, silent
from tests.training.factories import TINY, recipe

CONFIGS = Path(__file__).parents[2] / "configs"
PARTS = {"study_student", "study_teacher"}
STUDIES = sorted({path.stem for path in CONFIGS.glob("study_*.yaml")} - PARTS)
BASELINES = sorted(path.stem for path in (CONFIGS / "baselines").glob("*.yaml"))
STUDENT = TINY | {
    "forces": "direct",
    "num_layers": 2,
    "lmax": 2,
    "mmax": 2,
    "delta": True,
}


@pytest.fixture(scope="module")
def teacher(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of three layers, as deep as a teacher of the tiny student."""
    folder = tmp_path_factory.mktemp("teacher")
    tree = recipe(dataset, folder, max_steps=1)
    tree["student"]["architecture"] = STUDENT | {"num_layers": 3, "delta": False}
    train(TrainConfig.model_validate(tree), quiet=True)
    return folder / "student.pt"


def plan_for(
    baseline: str, dataset: Path, folder: Path, start: Path, **base_changes: Any
) -> Plan:
    """Return the plan of one run of a baseline of the repository on the tiny set."""
    changes = yaml.safe_load((CONFIGS / "baselines" / f"{baseline}.yaml").read_text())
    base = recipe(dataset, folder, max_steps=2) | base_changes
    base["student"] |= {
        "architecture": STUDENT,
        "init_from": str(start),
        "init_parts": ["embeddings", "force_head"],
    }
    return plan_of(dataset, folder, base=base, methods={baseline: changes}, seeds=[1])


@pytest.fixture(scope="module")
def complete(dataset: Path, teacher: Path) -> Path:
    """Return the small set with all that the teacher can say."""
    out = dataset.with_name("complete.aselmdb")
    wanted = LabelRequest(features="all", jacobian_rows=2)
    label_structures([dataset], out, teacher=str(teacher), wanted=wanted)
    return out


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_baseline_trains(
    baseline: str, complete: Path, tmp_path: Path, teacher: Path
) -> None:
    plan = plan_for(baseline, complete, tmp_path, teacher)
    run_study(plan, watch=silent())
    (row,) = summarize_study(plan).rows
    assert row.errors == {}
    assert row.columns["steps"].mean == 2
    needs_head = plan.students[0].config.needs_features
    assert ("head_cosine" in row.columns) == needs_head


@pytest.mark.parametrize(
    ("baseline", "missing"),
    [
        ("ark", "degrees up to 2"),
        ("hessian", "rows of the teacher's force Jacobian"),
        ("node_energy", "energies of single atoms"),
    ],
)
def test_labels_that_a_set_has_not_got_are_named(
    baseline: str, missing: str, dataset: Path, tmp_path: Path, teacher: Path
) -> None:
    plan = plan_for(baseline, dataset, tmp_path, teacher)
    run_study(plan, watch=silent())
    (row,) = summarize_study(plan).rows
    assert missing in row.errors[1]


def test_an_online_teacher_serves_training_and_measuring(
    dataset: Path, tmp_path: Path, teacher: Path
) -> None:
    online = {"kind": "online", "spec": str(teacher), "labels": "step"}
    plan = plan_for("crack_n2n_hessian", dataset, tmp_path, teacher, teacher=online)
    run_study(plan, watch=silent())
    (row,) = summarize_study(plan).rows
    assert row.errors == {}
    # the features of the set are of another teacher, with five channels
    assert row.columns["head_cosine"].mean <= 1


def test_pretrained_is_the_teacher_cut_short(
    dataset: Path, tmp_path: Path, teacher: Path
) -> None:
    run = plan_for("pretrained", dataset, tmp_path, teacher).students[0]
    source = load_model(teacher).network.state_dict()
    data = DataCache().training_data(run.config)
    copied = build_student(run.config.student, data).network.state_dict()
    equal = {key.split(".")[0] for key in copied if key in source}
    assert all(copied[key].equal(source[key]) for key in copied if key in source)
    assert equal >= {"sphere_embedding", "blocks", "norm", "energy_block"}
    assert {key.split(".")[0] for key in copied if key not in source} == {"delta"}


def test_distilled_students_share_embeddings_and_force_head_alone(
    dataset: Path, tmp_path: Path, teacher: Path
) -> None:
    run = plan_for("crack", dataset, tmp_path, teacher).students[0]
    source = load_model(teacher).network.state_dict()
    data = DataCache().training_data(run.config)
    student = build_student(run.config.student, data).network.state_dict()
    parts = ("sphere_embedding.", "edge_degree_embedding.", "force_block.")
    for key in student:
        if key.startswith(parts):
            assert student[key].equal(source[key])
    first = "blocks.0.ga.so2_conv_1.fc_m0.weight"
    assert not student[first].equal(source[first])


def test_vanilla_starts_from_nothing(
    dataset: Path, tmp_path: Path, teacher: Path
) -> None:
    run = plan_for("vanilla", dataset, tmp_path, teacher).students[0]
    assert run.config.student.init_from is None
    assert run.config.student.init_parts is None


def test_parts_of_other_sizes_are_refused() -> None:
    small, large = tiny_model().network, tiny_model(sphere_channels=12).network
    with pytest.raises(ConfigError, match=r"matches 0 of \d+ weights of norm; give"):
        copy_matching_weights(small, large, name="small", parts=["norm"])


@pytest.mark.parametrize("name", STUDIES)
def test_the_studies_of_the_repository_are_valid(name: str) -> None:
    plan = plan_study(load_study(CONFIGS / f"{name}.yaml"))
    assert len(plan.study.seeds) >= 3
    for run in plan.students:
        architecture = run.config.student.architecture
        assert (architecture.num_layers, architecture.cutoff) == (2, 4.5)
        assert run.config.optimizer == plan.students[0].config.optimizer


def test_the_teacher_of_the_study_is_deeper_and_else_alike() -> None:
    plan = plan_study(load_study(CONFIGS / "study_same_architecture.yaml"))
    teacher = yaml.safe_load((CONFIGS / "study_teacher.yaml").read_text())
    student = plan.study.base["student"]["architecture"]
    assert student == teacher["student"]["architecture"] | {
        "num_layers": 2,
        "delta": True,
    }
