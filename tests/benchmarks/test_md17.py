"""The table of runs on MD17, from records with known numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from benchmarks.md17 import Run, draw, summary, table
from crack_md.workflows.sampling.reference import ReferenceFrames


def record(**changes: Any) -> dict[str, Any]:
    return {
        "verdict": "FAIL",
        "energies": [
            {"what": "model on its chains", "mean_eV": 0.4321, "std_eV": 0.1789}
        ],
        "metrics": [
            {"metric": "wasserstein_1", "value": 4.0, "ratio": 1.5},
            {"metric": "rmse_F", "value": 31.26, "ratio": 3.49},
            {"metric": "rmse_F", "value": 12.0, "ratio": None},
        ],
        "spurious": {"fraction": 0.00123},
        "chains": {"n_blow_ups": 7},
        "model": {"energy_offset_eV": 0.0},
        **changes,
    }


def run_of(
    folder: Path,
    *,
    kinds: tuple[str, ...] = ("task",),
    start: str | None = None,
    **changes: Any,
) -> Run:
    provenance = {
        "losses": [{"kind": kind} for kind in kinds],
        "data": {"n_train": 200},
        "training": {"steps": 3000},
        "config": {"run": {"seed": 4}, "student": {"init_from": start}},
    }
    return Run(folder, provenance, 49.44, 12.34, record(**changes))


def test_rows_hold_the_records(tmp_path: Path) -> None:
    longer = run_of(tmp_path, start="student.pt")
    healed = run_of(tmp_path, kinds=("task", "crmse"), start="student.pt")
    rows = table([run_of(tmp_path), longer, healed])
    *_, one, control, other = rows.splitlines()
    assert "| energies, forces, longer |" in control
    assert one == (
        "| 200 | 4 | energies, forces | 3,000 | 49.4 | 12.3 | 0.432 ± 0.179 | 31.3 | "
        "3.5 | 0.0012 | 7 | FAIL |"
    )
    assert "| energies, forces + CRMSE |" in other


def test_the_summary_takes_differences_seed_by_seed(tmp_path: Path) -> None:
    runs = []
    for seed, forces in ((1, 50.0), (2, 60.0)):
        plain = run_of(tmp_path)
        longer = run_of(tmp_path, start="student.pt", verdict="PASS")
        for run, error in ((plain, forces), (longer, forces - 3.0 - seed)):
            provenance = {
                **run.provenance,
                "config": {**run.provenance["config"], "run": {"seed": seed}},
            }
            runs.append(replace(run, provenance=provenance, force_mae=error))
    first, second = summary(runs).splitlines()[2:]
    assert first.startswith(
        "| 200 | energies, forces | 0/2 | 55.0 ± 7.1 | 12.3 ± 0.0 |"
    )
    assert first.endswith("|  |  |  |")
    assert "| 2/2 | 50.5 ± 6.4 |" in second
    # -4 and -5: a spread of 0.707 and Student's t of one degree of freedom
    assert "| -4.5 ± 6.4 (tie) |" in second


def test_a_run_without_frames_that_count_has_gaps(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {
        "energies": [],
        "metrics": [],
        "spurious": {"fraction": None},
    }
    row = table([run_of(tmp_path, **nothing)]).splitlines()[-1]
    assert "| 12.3 |  |  |  |  | 7 |" in row


def test_figure_has_a_row_for_every_size(tmp_path: Path) -> None:
    ring = np.array([[0.0, 0, 0], [1.5, 0, 0], [2, 1.4, 0], [3.4, 1.5, 0.3]])
    rng = np.random.default_rng(0)
    frames = ring + 0.05 * rng.normal(size=(60, 4, 3))
    reference = ReferenceFrames(
        "butane's carbon", np.full(4, 6), frames, rng.normal(size=60), temperature_K=500
    )
    for name in ("plain", "healed"):
        folder = tmp_path / name / "sampling"
        folder.mkdir(parents=True)
        np.savez(
            folder / "chains.npz",
            positions=frames.reshape(20, 3, 4, 3),
            energies=np.zeros((20, 3)),
        )
    runs = [
        run_of(tmp_path / "plain"),
        run_of(tmp_path / "healed", kinds=("task", "crmse")),
    ]
    figure = draw(runs, reference)
    assert len(figure.axes) == 2
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["DFT", "energies and forces", "with CRMSE"]
    assert len(figure.axes[1].lines) == 3
    plt.close("all")


@pytest.mark.parametrize("missing", ["student.pt"])
def test_a_folder_without_a_student_is_one_line(tmp_path: Path, missing: str) -> None:
    from benchmarks.md17 import main

    with pytest.raises(SystemExit, match="error: "):
        main(
            [str(tmp_path), "--data", "x", "--reference", "y", "--molecule", "ethanol"]
        )
