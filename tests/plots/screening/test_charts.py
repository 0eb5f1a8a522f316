"""The volcano and the free-energy diagrams: where marks and levels are."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from crack_md.plots.screening.candidates import (
    diagram_svg,
    draw_diagram,
    levels,
    limiting_step,
)
from crack_md.plots.screening.view import EnergyView, ReportView, SlabView
from crack_md.plots.screening.volcano import (
    SIZE_IN,
    draw_volcano,
    ranked_points,
    volcano_svg,
)
from crack_md.plots.style import FAINT, INK, as_markup
from crack_md.workflows.orr import Volcano
from crack_md.workflows.ranking.rank import rank_slabs
from crack_md.workflows.ranking.results import write_ranking
from crack_md.workflows.screening.reader import read_screening
from tests.workflows.ranking.screenings import ENERGIES, write_screening

VOLCANO = Volcano.named("O", "man-2011")


def view_of(folder: Path, *, ranked: bool = False) -> ReportView:
    screening = read_screening(folder)
    if ranked:
        write_ranking(rank_slabs(screening), folder)
    return ReportView.of(screening)


def volcano_of(view: ReportView) -> ET.Element:
    return ET.fromstring(as_markup(volcano_svg(view, VOLCANO)))


def points(svg: ET.Element) -> list[ET.Element]:
    return [e for e in svg.iter() if "point" in e.get("class", "").split()]


def place(point: ET.Element) -> list[float]:
    return [float(point.get(name, "")) for name in "xy"]


def figure_of(view: ReportView) -> Figure:
    return draw_volcano([point for _, point in ranked_points(view, VOLCANO)], VOLCANO)


def part(figure: Figure, gid: str) -> Artist:
    return next(a for a in figure.findobj() if a.get_gid() == gid)


def test_points_lie_where_the_formula_puts_them(tmp_path: Path) -> None:
    svg = volcano_of(view_of(write_screening(tmp_path)))
    left, top, width, height = json.loads(svg.get("data-plot", ""))
    x0, x1, y0, y1 = json.loads(svg.get("data-range", ""))
    found = points(svg)
    assert len(found) == len(ENERGIES)  # the failed slab has no point
    energies = sorted(float(point.get("data-x", "")) for point in found)
    assert energies == pytest.approx(sorted(dE + 0.04 for dE in ENERGIES.values()))
    for point in found:
        dG, potential = float(point.get("data-x", "")), float(point.get("data-y", ""))
        assert potential == pytest.approx(min(1.72 - dG / 2, dG / 2))
        assert place(point) == pytest.approx(
            [
                left + width * (dG - x0) / (x1 - x0),
                top + height * (y1 - potential) / (y1 - y0),
            ],
            abs=0.01,
        )


def test_curve_goes_through_the_apex_and_the_points(tmp_path: Path) -> None:
    view = view_of(write_screening(tmp_path))
    figure = figure_of(view)
    x, y = part(figure, "curve").get_xydata().T
    assert (x[0], x[-1]) == pytest.approx(figure.axes[0].get_xlim())
    spacing = x[1] - x[0]
    assert x[y.argmax()] == pytest.approx(1.72, abs=spacing)
    assert y.max() == pytest.approx(0.86, abs=spacing / 2)
    for point in points(volcano_of(view)):
        dG = float(point.get("data-x", ""))
        potential = float(point.get("data-y", ""))
        assert np.interp(dG, x, y) == pytest.approx(potential, abs=spacing / 2)


def test_other_scalings_and_the_overpotential_are_drawn(tmp_path: Path) -> None:
    figure = figure_of(view_of(write_screening(tmp_path)))
    for number, other in enumerate(VOLCANO.others):
        x, y = part(figure, f"other-{number}").get_xydata().T
        assert y == pytest.approx(other.potential(x))
    left = figure.axes[0]
    (right,) = left.child_axes
    for potential in left.get_ylim():
        height = left.transData.transform((0.0, potential))[1]
        assert right.transData.transform((0.0, 1.23 - potential))[1] == pytest.approx(
            height
        )


def test_intervals_reach_as_far_as_they_say(tmp_path: Path) -> None:
    view = view_of(write_screening(tmp_path), ranked=True)
    svg = volcano_of(view)
    _, _, width, _ = json.loads(svg.get("data-plot", ""))
    x0, x1, _, _ = json.loads(svg.get("data-range", ""))
    half = 1.959964 * np.hypot(0.10, 0.12)
    bars = [e for e in svg.iter() if "interval" in e.get("class", "").split()]
    assert len(bars) == len(points(svg))
    for point in points(svg):
        bar = next(e for e in bars if e.get("data-slab") == point.get("data-slab"))
        start, _, end, _ = map(float, re.findall(r"[-\d.]+", bar.get("d", "")))
        x, pixels = place(point)[0], half * width / (x1 - x0)
        # matplotlib draws what lies on the page, and a pixel more
        ends = np.clip((x - pixels, x + pixels), -1, 72 * SIZE_IN[0] + 1)
        assert (start, end) == pytest.approx(tuple(ends), abs=0.01)


def test_without_a_ranking_there_are_no_intervals(tmp_path: Path) -> None:
    svg = volcano_of(view_of(write_screening(tmp_path)))
    assert not [e for e in svg.iter() if "interval" in e.get("class", "")]


@pytest.mark.parametrize("n", [0, 1, 24, 61, 300])
def test_names_stay_inside_and_apart(tmp_path: Path, n: int) -> None:
    random = np.random.default_rng(1)
    energies = {f"PtCu{i}(111)": float(random.normal(1.6, 0.4)) for i in range(n)}
    figure = figure_of(view_of(write_screening(tmp_path, energies)))
    figure.draw_without_rendering()
    frame = figure.axes[0].get_window_extent()
    boxes = [
        text.get_window_extent()
        for text in figure.axes[0].texts
        if (text.get_gid() or "").startswith("label-")
    ]
    assert bool(boxes) == bool(n)
    for i, box in enumerate(boxes):
        assert frame.x0 < box.x0 < box.x1 < frame.x1
        assert frame.y0 < box.y0 < box.y1 < frame.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("n", [1, 24])
def test_names_say_whose_they_are(tmp_path: Path, n: int) -> None:
    energies = {f"PtCu{i}(111)": 1.0 + 0.05 * i for i in range(n)}
    view = view_of(write_screening(tmp_path, energies))
    labels = [e for e in volcano_of(view).iter() if e.get("class") == "label"]
    assert labels
    names = {str(slab.index): slab.name for slab in view.slabs}
    for label in labels:
        assert "".join(label.itertext()).strip() == names[label.get("data-slab", "")]


def slab(**free_energies: float) -> SlabView:
    """Return a slab with these free energies in eV by adsorbate."""
    energies = {
        name: EnergyView("fcc", dG, dG, None, "model")
        for name, dG in free_energies.items()
    }
    row = {"slab": "x"}
    return SlabView(0, row, "x", "Pt", "ok", "", 1, energies, "man-2011", None, None)


def test_levels_of_the_ideal_surface() -> None:
    """At the apex ΔG_O = 1.72: OOH* 4.06, OH* 0.86; at 0.86 V two steps are flat."""
    ideal = slab(O=1.72)
    assert levels(ideal, 0.0) == pytest.approx([4.92, 4.06, 1.72, 0.86, 0.0])
    driven = levels(ideal, 0.86)
    assert driven == pytest.approx([1.48, 1.48, 0.0, 0.0, 0.0])


def test_levels_that_were_computed_are_not_inferred() -> None:
    both = slab(O=1.5, OH=0.9)
    assert levels(both, 0.0) == pytest.approx([4.92, 4.10, 1.5, 0.9, 0.0])
    axes = draw_diagram(both).axes[0]
    names = {text.get_text(): text.get_color() for text in axes.get_xticklabels()}
    assert names["OOH*"] == FAINT
    assert names["OH*"] == names["O*"] == names["H₂O"] == INK


@pytest.mark.parametrize(
    ("dG", "step"), [(1.3, "O* → OH*"), (2.1, "O₂ → OOH*"), (1.0, "O* → OH*")]
)
def test_the_limiting_step_is_flat_at_the_limiting_potential(
    dG: float, step: str
) -> None:
    potential = float(VOLCANO.potential(np.array(dG)))
    steps = np.diff(levels(slab(O=dG), potential))
    assert steps.max() == pytest.approx(0.0, abs=1e-12)
    assert limiting_step(slab(O=dG)) == step


def test_diagram_shows_the_levels() -> None:
    figure = draw_diagram(slab(O=1.3))
    axes = figure.axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["4.92", "3.85", "1.30", "0.65", "0.00"]
    still = part(figure, "still").get_segments()
    assert [line[0, 1] for line in still] == pytest.approx([4.92, 3.85, 1.3, 0.65, 0.0])
    flat = part(figure, "limiting").get_ydata()
    assert flat[0] == pytest.approx(flat[1])
    keys = [text.get_text() for text in axes.get_legend().get_texts()]
    assert keys == ["U = 0", "U = 0.65 V"]
    svg = ET.fromstring(diagram_svg(slab(O=1.3)))
    assert svg.get("aria-label", "").endswith("O* 1.30, OH* 0.65, H₂O 0.00")


@pytest.mark.parametrize("dG", [-3.0, 6.0])
def test_diagram_of_an_odd_surface_stays_inside(dG: float) -> None:
    axes = draw_diagram(slab(O=dG)).axes[0]
    low, high = axes.get_ylim()
    levels_of = [line[0, 1] for c in axes.collections for line in c.get_segments()]
    assert len(levels_of) == 10
    assert all(low < level < high for level in levels_of)


def test_computed_potentials_lie_off_the_line(tmp_path: Path) -> None:
    """OH* of Pt(111) at 0.9 eV: min over steps with OOH* 4.1, O* 1.66 is 0.76 V."""
    write_screening(tmp_path, others={"OH": {"Pt(111)": 0.55}})
    view = view_of(tmp_path, ranked=True)
    svg = volcano_of(view)
    platinum = next(p for p in points(svg) if p.get("data-x") == "1.660000")
    assert float(platinum.get("data-y", "")) == pytest.approx(0.76)
