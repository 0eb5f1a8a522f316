"""`crack-md augment` and `crack-md label` as a user meets them."""

import sys

import pytest
import torch
import yaml
from ase.build import bulk
from ase.io import write

from crack_md import cli
from crack_md.data import read_dataset, read_structures
from crack_md.models.checkpoint import save_model
from tests.factories import tiny_model


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a command line: exit code, stdout, stderr."""

    def execute(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["crack-md", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return execute


def test_from_a_recipe_to_a_dataset(run, tmp_path):
    recipe, frames, train = (
        tmp_path / name for name in ("r.yaml", "f.aselmdb", "t.db")
    )
    content = {
        "generate": {
            "elements": ["Ag", "Cu", "Pd"],
            "counts": {"fcc111": 3, "bulk": 3},
        },
        "variants": {"rattle": {"frames": 2}, "relax": {"steps": 2, "rattled_ends": 0}},
    }
    recipe.write_text(yaml.safe_dump(content))

    code, out, _ = run(
        "augment", recipe, "--out", frames, "--teacher", "emt", "--seed", 4
    )
    assert code == 0
    assert out.strip() == f"{len(list(read_structures(frames)))} frames in {frames}"

    code, out, _ = run(
        "label", frames, "--out", train, "--teacher", "emt",
        "--hold-out", "Ag-Cu,Ag-Pd,Cu-Pd", "--val", "0", "--quiet",
    )  # fmt: skip
    assert code == 0
    for one in read_dataset(train).structures:
        metals = set(one.atoms.numbers.tolist()) - {1, 8}
        assert one.split == ("test" if len(metals) > 1 else "train")


def test_all_that_a_teacher_knows_is_stored_on_demand(run, tmp_path):
    source, model, out = (tmp_path / n for n in ("cu.traj", "six.pt", "t.db"))
    write(source, bulk("Cu", cubic=True))
    save_model(tiny_model(dtype=torch.float32), model)

    code, _, _ = run(
        "label", source, "--out", out, "--teacher", model, "--features", "all",
        "--jacobian-rows", 2, "--jacobian-step", 0.02, "--largest-force", 1e6,
    )  # fmt: skip

    assert code == 0
    dataset = read_dataset(out)
    teacher = dataset.structures[0].teacher
    assert teacher.node_features.shape == (4, 9, 8)
    assert teacher.jacobian.values.shape == (2, 4, 3)
    assert dataset.metadata["jacobian_rows"] == 2
    assert dataset.metadata["jacobian_step_A"] == 0.02


def test_structure_files_need_no_recipe(run, tmp_path):
    source = tmp_path / "cu.cif"
    write(source, bulk("Cu", cubic=True))

    code, _, _ = run("augment", source, "--out", tmp_path / "f.extxyz", "--quiet")

    kinds = [atoms.info["kind"] for atoms in read_structures(tmp_path / "f.extxyz")]
    assert code == 0
    assert kinds == ["rattled"] * 4 + ["strained"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("augment", "gone.db", "--out", "f.db"), "no such file: 'gone.db'"),
        (("augment", "gone.yaml", "--out", "f.db"), "gone.yaml: no such file"),
        (("augment", "a.yaml", "b.yaml", "--out", "f.db"), "2 recipes given"),
        (("augment", "cu.traj", "--out", "f.txt"), "unknown ending '.txt'"),
        (("label", "gone.db", "--out", "t.db", "--teacher", "emt"), "no such file"),
        (
            ("label", "cu.traj", "--out", "t.db", "--teacher", "x"),
            "unknown teacher 'x'",
        ),
        (
            (
                "label",
                "cu.traj",
                "--out",
                "t.db",
                "--teacher",
                "emt",
                "--hold-out",
                "Cu",
            ),
            "'Cu' is no combination of 2 or more different elements",
        ),
        (
            ("label", "cu.traj", "--out", "cu.traj/t.db", "--teacher", "emt"),
            "cannot create the folder cu.traj",
        ),
        (("label", "fe.traj", "--out", "t.db", "--teacher", "emt"), "does not know Fe"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    write("cu.traj", bulk("Cu"))
    write("fe.traj", bulk("Fe"))
    before = sorted(path.name for path in tmp_path.iterdir())

    code, out, err = run(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    left = sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock")
    assert left == before  # a lock stays: removing it would let two writers in
