"""`crack-md distil` and `crack-md pack` as a user meets them."""

import sys

import pytest
import yaml

from crack_md import cli
from crack_md.data import read_dataset
from tests.training.on_policy.loops import loop_tree, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("loop"))


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


def test_a_loop_ends_with_its_table(run, data, tmp_path):
    path = tmp_path / "loop.yaml"
    path.write_text(yaml.safe_dump(loop_tree(data, tmp_path)))

    code, out, err = run("distil", path, "--set", "rounds=0")

    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["round", "frames"]
    assert out.splitlines()[2].split()[0] == "0"
    assert "round 0: training" in err
    assert (tmp_path / "run" / "student.pt").is_file()
    again = run("distil", path, "--set", "rounds=0", "--quiet")
    assert again == (0, "", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("selekt.budget=5", "selekt: Extra inputs are not permitted"),
        (
            "select.budget=0",
            "select.budget: Input should be greater than or equal to 1",
        ),
        ("mix.share=0.5", "give either repeats or share"),
        ("student=missing.yaml", "missing.yaml: no such file"),
        ("teacher=nobody", "unknown teacher 'nobody'"),
        ("starts.path=missing.db", "starts.path: no such file or folder: missing.db"),
    ],
)
def test_bad_loops_end_in_one_line(run, data, tmp_path, change, message):
    path = tmp_path / "loop.yaml"
    path.write_text(yaml.safe_dump(loop_tree(data, tmp_path)))

    code, _, err = run("distil", path, "--set", change)

    assert code == 2
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "run" / "round-0").exists()  # nothing was trained before


def test_a_set_is_packed(run, data, tmp_path):
    code, out, _ = run("pack", data, "--out", tmp_path / "orr")

    assert code == 0
    assert out.splitlines()[0].startswith(
        f"18 structures in {tmp_path / 'orr'}: 0.0 MB"
    )
    assert out.splitlines()[1] == "left out: teacher_node_energy"
    packed = read_dataset(tmp_path / "orr")
    assert packed.metadata["split"]["held_out"] == [["Ag", "Pd"]]
    assert run("pack", data, "--out", tmp_path / "orr")[0] == 2
