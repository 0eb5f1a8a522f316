"""Figures of a study show the numbers of its table."""

import dataclasses
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from crack_md.plots.study import draw_bars, draw_curves, write_figures
from crack_md.study.summary import Row, Spread, StudySummary

FORCES = {"vanilla": (100.0, 104.0), "crack": (90.0, 96.0), "n2n": (95.0, 97.0)}


def row(method: str, budget: int, scale: float = 1.0) -> Row:
    values = dict(enumerate(np.multiply(FORCES[method], scale).tolist(), start=1))
    columns = {
        "force_mae_meV_per_A": Spread(values),
        "energy_mae_meV_per_atom": Spread({k: v / 5 for k, v in values.items()}),
        "steps": Spread(dict.fromkeys(values, float(budget))),
    }
    return Row(method, f"{budget}-steps", columns, 2, 2, {})


def summary(*, failed: bool = False) -> StudySummary:
    rows = [row(m, b, s) for b, s in ((300, 2.0), (900, 1.0)) for m in FORCES]
    if failed:
        rows.append(Row("lost", "900-steps", {}, 0, 2, {1: "no features"}))
    teacher = {"labels": {"all": {"force_mae_meV_per_A": 60.0}}}
    return StudySummary(
        "A study",
        "vanilla",
        tuple(rows),
        ("300-steps", "900-steps"),
        teacher,
        None,
        "7 frames",
    )


def dots(figure: Figure, panel: int) -> np.ndarray:
    axes = figure.axes[panel]
    return np.concatenate([np.ma.getdata(c.get_offsets()) for c in axes.collections])


def test_bars_are_means_of_the_last_budget_and_dots_are_seeds() -> None:
    figure = draw_bars(summary())
    axes = figure.axes[0]
    means = [line.get_xdata() for line in axes.lines if line.get_marker() == "D"]
    assert [float(mean[0]) for mean in means] == [102.0, 93.0, 96.0]
    assert not axes.patches  # these differ by little: bars from zero would hide it
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["vanilla", "crack", "n2n"]
    seeds = [value for pair in FORCES.values() for value in pair]
    shown = dots(figure, 0)
    assert set(seeds) <= set(shown[:, 0])
    assert axes.get_xlim()[0] < 60.0  # the teacher's line is inside


def test_bars_start_at_zero(tmp_path: Path) -> None:
    rows = (row("vanilla", 900, 3.0), row("crack", 900))
    apart = StudySummary("x", "vanilla", rows, ("900-steps",), None, None, "")
    axes = draw_bars(apart).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [306.0, 93.0]
    assert axes.get_xlim()[0] == 0.0


def test_curves_pass_through_means() -> None:
    axes = draw_curves(summary()).axes[0]
    line = next(one for one in axes.lines if one.get_label() == "crack")
    assert line.get_xydata().tolist() == [[300.0, 186.0], [900.0, 93.0]]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert sorted({x for x, _ in dots(draw_curves(summary()), 0)}) == [300.0, 900.0]


def test_curves_over_frames_where_steps_are_the_same() -> None:
    budgets = (("3-steps-125-frames", 2.0), ("3-steps-500-frames", 1.0))
    rows = tuple(
        dataclasses.replace(row("crack", 3, scale), budget=budget)
        for budget, scale in budgets
    )
    axes = draw_curves(
        StudySummary("x", "crack", rows, tuple(b for b, _ in budgets), None, None, "")
    ).axes[0]
    assert axes.get_xlabel() == "frames"
    assert axes.lines[0].get_xydata().tolist() == [[125.0, 186.0], [500.0, 93.0]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["125", "500"]


def test_methods_without_results_are_named() -> None:
    figure = draw_bars(summary(failed=True))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert "lost" in [text.get_text() for text in axes.get_yticklabels()]
    assert "no result" in [text.get_text() for text in axes.texts]


def test_files_are_images_and_repeat_to_the_byte(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    first = write_figures(summary(), tmp_path)
    assert [path.name for path in first] == ["figure.png", "curve.png"]
    content = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in write_figures(summary(), tmp_path)] == content
    pixels = imread(io.BytesIO(content[0]))
    assert 0.02 < np.mean(pixels[..., :3].min(axis=-1) < 0.9) < 0.6
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("rows", [(), (Row("a", "3-steps", {}, 0, 1, {}),)])
def test_nothing_to_show_is_no_figure(tmp_path: Path, rows: tuple[Row, ...]) -> None:
    empty = StudySummary("x", "a", rows, ("3-steps",), None, None, "")
    assert write_figures(empty, tmp_path) == []
