"""From times to records, tables and documents; and our own engine for real."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase import Atoms

from benchmarks import gpu, speed
from benchmarks.contest import Contest, Row, run_contest
from benchmarks.contestant import Contestant, Settings
from benchmarks.engines import OURS, Engine, engines
from benchmarks.results import agreement, ratio_to, read_json, records, write_json
from benchmarks.speed_table import markdown, write_section
from benchmarks.work import Case, cases, dynamics, silicon
from crack_md.errors import DataError
from crack_md.models.checkpoint import save_model
from tests.factories import tiny_model

ATOMS = Atoms("H4", [[0, 0, i] for i in range(4)])


def own_engine(folder: Path, name: str) -> Engine:
    path = folder / f"{name}.pt"
    save_model(tiny_model(dtype=torch.float32), path)
    options = {"model": str(path), "any_element": True}
    return Engine(name, name, OURS, "crack.py", options, function="f")


def contest_of(*times: list[list[float]], work: str = "single") -> Contest:
    case = Case("H", work, (ATOMS,))
    names = ["22M", "other"]
    contestants = [
        Contestant(
            Engine(name, f"engine {name}", OURS, "crack.py"),
            Settings(),
            cold_start={"import_s": 1.0, "load_s": 0.5, "first_s": 0.25},
            about={"weights": 3, "versions": {"torch": "2"}},
        )
        for name in names
    ]
    rows = [
        Row(name, case, rounds=rounds, peak_bytes=5_000_000, flops=4e9, bytes=1e9)
        for name, rounds in zip(names, times, strict=True)
    ]
    rates = {"float32": {"flops_per_s": 1e10, "bytes_per_s": 2e10}}
    return Contest(contestants, rows, rates)


def test_ratios_are_taken_round_by_round() -> None:
    case = Case("H", "single", (ATOMS,))
    # a machine that slows down changes both: the ratio stays
    slow = Row("a", case, rounds=[[2.0, 9.0, 2.0], [20.0], [30.0]])
    quick = Row("b", case, rounds=[[1.0], [10.0], [10.0]])
    assert ratio_to(slow, quick) == {"median": 2.0, "low": 2.0, "high": 3.0}
    assert ratio_to(slow, Row("c", case)) is None


def test_records_of_known_times() -> None:
    contest = contest_of([[1.0, 1.0], [4.0]], [[3.0, 3.0], [4.0]])
    content = records(contest, Settings())
    first, second = content["rows"]
    assert first["median_s"] == 1.0
    assert first["atom_steps_per_s"] == 4.0
    assert first["ns_per_day"] == pytest.approx(0.0864)
    assert first["of_gemm_rate"] == pytest.approx(0.4)
    assert first["of_bandwidth"] == pytest.approx(0.05)
    assert first["peak_MB"] == 5.0
    assert second["ratio"] == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_a_step_of_dynamics_is_a_mean() -> None:
    (row, _) = records(contest_of([[1.0, 1.0, 4.0]], [[1.0]], work="md"), Settings())[
        "rows"
    ]
    assert row["ns_per_day"] == pytest.approx(0.0432)
    assert row["atom_steps_per_s"] == 2.0


def test_tables_say_what_was_measured_and_what_was_not() -> None:
    contest = contest_of([[0.5]], [[1.0]])
    contest.rows[1].reason = "out of memory"
    text = markdown(records(contest, Settings()))
    assert (
        "| H | 4 | engine 22M | 500.0 | 500.0–500.0 | 1.00 (1.00–1.00) | 8 | 0.173 | 5 "
        "| 4.0 | 80 % | 10 % |" in text
    )
    assert "| H | 4 | engine other | not run: out of memory |" in text
    assert "| engine 22M | torch 2 | 3 | 1.0 | 0.5 | 0.2 | 1.8 |" in text
    widths = {
        len(line.split("|"))
        for line in text.split("### Cold")[0].splitlines()
        if line.startswith("|")
    }
    assert widths == {14}


def test_agreement_is_what_predictions_differ_by() -> None:
    contest = contest_of([[1.0]], [[1.0]])
    one, two = contest.contestants
    one.prediction = {"energies": [1.0], "forces": [[[0.5, 0.0, 0.0]] * 2]}
    two.prediction = {"energies": [1.5], "forces": [[[0.5, 0.25, 0.0]] * 2]}
    assert agreement([one, two]) == []  # nobody says that they have the same weights
    for contestant in (one, two):
        object.__setattr__(contestant.engine, "function", "f")
    (found,) = agreement([one, two])
    assert found["energy_meV_per_atom"] == 250.0
    assert found["force_eV_per_A"] == 0.25
    assert found["largest_force_eV_per_A"] == 0.5


def test_a_section_of_a_document_is_replaced(tmp_path: Path) -> None:
    begin, end = "<!-- speed: begin -->", "<!-- speed: end -->"
    other = "<!-- blocks: begin -->\nother\n<!-- blocks: end -->"
    document = tmp_path / "page.md"
    document.write_text(f"{other}\n{begin}\nold\n{end}\nafter\n")
    write_section(document, "new", name="speed")
    assert document.read_text() == f"{other}\n{begin}\n\nnew\n\n{end}\nafter\n"
    document.write_text(other)
    with pytest.raises(DataError, match="has no lines"):
        write_section(document, "new", name="speed")
    assert document.read_text() == other


def test_tables_are_made_again_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = records(contest_of([[0.5]], [[1.0]]), Settings())
    write_json(content, tmp_path / "speed.json")
    assert read_json(tmp_path / "speed.json") == json.loads(json.dumps(content))
    page = tmp_path / "page.md"
    page.write_text("<!-- speed: begin -->\n<!-- speed: end -->\n")
    speed.main(["--read", str(tmp_path / "speed.json"), "--write", str(page)])
    assert "| engine 22M |" in page.read_text()
    assert "| engine 22M |" in capsys.readouterr().out


def test_work_is_that_of_the_design() -> None:
    works = ["single", "batch", "md"]
    found = cases(works, atoms=[46, 81, 1000, 5000], batch=64, md_atoms=[46])
    assert [(case.work, case.n_atoms) for case in found] == [
        ("single", 46),
        ("single", 81),
        ("single", 981),
        ("single", 4961),
        ("batch", 64 * 46),
        ("md", 46),
    ]
    assert len(found[4].structures) == 64
    assert len({one.positions.tobytes() for one in found[4].structures}) == 64
    assert len(silicon(1000)) == 1000
    assert [case.system for case in dynamics([8])] == ["O/Pt(111)", "Si"]


def test_our_engine_does_every_kind_of_work(tmp_path: Path) -> None:
    chosen = [own_engine(tmp_path, "a"), own_engine(tmp_path, "b")]
    work = cases(["single", "network", "batch", "md"], atoms=[6], batch=2, md_atoms=[6])
    work.append(dynamics([8])[1])
    settings = Settings(
        rounds=2, round_s=0.0, md_steps=4, md_warm_up=1, logs=tmp_path / "logs"
    )
    content = records(run_contest(chosen, work, settings), settings)
    assert [row["not_run"] for row in content["rows"]] == [None] * 10
    for row in content["rows"]:
        assert row["peak_MB"] > 0
        if row["work"] != "md":
            assert 0 < row["of_gemm_rate"] < 1
    (same,) = content["agreement"]
    assert same["energy_meV_per_atom"] == 0.0
    assert same["force_eV_per_A"] == 0.0
    assert same["largest_force_eV_per_A"] > 0


def test_figures_of_a_gpu_can_be_tried_out_without_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"student": own_engine(tmp_path, "student")}
    out = tmp_path / "gpu"
    options = ["--device", "cpu", "--tiny", "--threads", "1", "--out", str(out)]
    gpu.main([*options, "--parts", "student", "md"], known=known)
    for name, n_rows in (("student", 2), ("md", 2)):
        rows = read_json(out / f"{name}.json")["rows"]
        assert [row["not_run"] for row in rows] == [None] * n_rows
    page = (out / "gpu.md").read_text()
    assert "## The packaged student" in page
    assert "| Si | 64 |" in page
    assert "no time" not in capsys.readouterr().out


def test_engines_of_the_parts_exist(tmp_path: Path) -> None:
    known = engines(tmp_path)
    named = {name for part in gpu.PARTS.values() for name in part.engines}
    assert named.union(speed.DEFAULT_ENGINES) <= set(known)
    assert known["22M"].missing == ""


@pytest.mark.slow
def test_a_model_that_cannot_be_compiled_has_no_compiled_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/bin/false")
    plain = own_engine(tmp_path, "a")
    compiled = replace(plain, options={**plain.options, "compile": True})
    settings = Settings(rounds=1, round_s=0.0, logs=tmp_path / "logs")
    work = cases(["single"], atoms=[6], batch=0, md_atoms=[])
    (row,) = run_contest([compiled], work, settings).rows
    assert "it goes on uncompiled" in row.reason
    assert row.rounds == []


def test_protocols_by_option() -> None:
    options = speed.parse_options(["--md", "--device", "cpu"])
    assert (options.md_steps, options.md_warm_up, options.atoms) == (100, 200, [1000])
    assert [case.system for case in speed.plan_work(options)] == ["O/Pt(111)", "Si"]
    options = speed.parse_options([])
    assert (options.md_steps, options.batch) == (1000, 64)
    assert options.atoms == [46, 81, 1000, 5000]
    options = speed.parse_options(["--quick", "--batch", "2"])
    assert (options.atoms, options.batch, options.md_steps) == ([46, 81], 2, 20)
    with pytest.raises(SystemExit, match="no engine many; there are 22M, "):
        speed.main(["--engines", "many"])
