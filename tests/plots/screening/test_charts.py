"""The volcano and the free-energy diagrams: where marks and levels are."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from crack_md.plots.screening.candidates import draw_diagram, levels, limiting_step
from crack_md.plots.screening.markup import Axes, ticks
from crack_md.plots.screening.view import EnergyView, ReportView, SlabView
from crack_md.plots.screening.volcano import draw_volcano
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
    return ET.fromstring(draw_volcano(view, VOLCANO))


def points(svg: ET.Element) -> list[ET.Element]:
    return [e for e in svg.iter("g") if "point" in e.get("class", "").split()]


def place(point: ET.Element) -> list[float]:
    text = point.get("transform", "").removeprefix("translate(").removesuffix(")")
    return [float(number) for number in text.split()]


def test_pixels_and_data() -> None:
    axes = Axes(10.0, 20.0, 200.0, 100.0, (1.0, 3.0), (0.0, 0.5))
    assert (axes.x(1.0), axes.x(2.0), axes.x(3.0)) == (10.0, 110.0, 210.0)
    assert (axes.y(0.0), axes.y(0.5)) == (120.0, 20.0)


@pytest.mark.parametrize(
    ("shown", "about", "names"),
    [
        ((0.0, 1.0), 5, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((-0.12, 0.11), 5, ["−0.10", "−0.05", "0.00", "0.05", "0.10"]),
        ((3.0, 47.0), 4, ["20", "40"]),
        ((1.701, 1.7095), 5, ["1.702", "1.704", "1.706", "1.708"]),
    ],
)
def test_ticks_are_round(
    shown: tuple[float, float], about: float, names: list[str]
) -> None:
    assert [name for _, name in ticks(shown, about)] == names


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
    svg = volcano_of(view_of(write_screening(tmp_path)))
    curve = next(e for e in svg.iter("polyline") if e.get("class") == "curve")
    x, y = (np.array(json.loads(curve.get(f"data-{axis}", ""))) for axis in "xy")
    low, high = json.loads(svg.get("data-range", ""))[:2]
    assert (x[0], x[-1]) == pytest.approx((low, high), abs=1e-5)
    assert x[y.argmax()] == pytest.approx(1.72)
    assert y.max() == pytest.approx(0.86)
    for point in points(svg):
        dG = float(point.get("data-x", ""))
        assert np.interp(dG, x, y) == pytest.approx(float(point.get("data-y", "")))


def test_intervals_reach_as_far_as_they_say(tmp_path: Path) -> None:
    view = view_of(write_screening(tmp_path), ranked=True)
    svg = volcano_of(view)
    _, _, width, _ = json.loads(svg.get("data-plot", ""))
    x0, x1, _, _ = json.loads(svg.get("data-range", ""))
    half = 1.959964 * np.hypot(0.10, 0.12)
    for point in points(svg):
        bar = next(e for e in point.iter("line") if e.get("class") == "interval")
        pixels = half * width / (x1 - x0)
        ends = float(bar.get("x1", "")), float(bar.get("x2", ""))
        assert ends == pytest.approx((-pixels, pixels), abs=0.01)


def test_without_a_ranking_there_are_no_intervals(tmp_path: Path) -> None:
    svg = volcano_of(view_of(write_screening(tmp_path)))
    assert not [e for e in svg.iter("line") if e.get("class") == "interval"]


@pytest.mark.parametrize("n", [0, 1, 24, 61, 300])
def test_names_stay_inside_and_apart(tmp_path: Path, n: int) -> None:
    random = np.random.default_rng(1)
    energies = {f"PtCu{i}(111)": float(random.normal(1.6, 0.4)) for i in range(n)}
    svg = volcano_of(view_of(write_screening(tmp_path, energies)))
    left, top, width, height = json.loads(svg.get("data-plot", ""))
    boxes = []
    for label in svg.iter("text"):
        if label.get("class") != "label":
            continue
        x, y = float(label.get("x", "")), float(label.get("y", ""))
        length = 6.6 * len(label.text or "")
        start = x - length if label.get("text-anchor") == "end" else x
        assert left < start
        assert start + length < left + width
        assert top + 10 < y < top + height
        boxes.append((start, start + length, y))
    assert bool(boxes) == bool(n)
    for i, (start, end, y) in enumerate(boxes):
        for other_start, other_end, other_y in boxes[:i]:
            apart = end < other_start or other_end < start
            assert apart or abs(y - other_y) >= 13


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
    svg = ET.fromstring(draw_diagram(both))
    names = {e.text: e.get("class") for e in svg.iter("text")}
    assert names["OOH*"] == "state inferred"
    assert names["OH*"] == names["O*"] == names["H₂O"] == "state"


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
    svg = ET.fromstring(draw_diagram(slab(O=1.3)))
    shown = [e.text for e in svg.iter("text") if e.get("class") == "value"]
    assert shown == ["4.92", "3.85", "1.30", "0.65", "0.00"]
    driven = next(e for e in svg.iter("g") if e.get("class") == "driven")
    flat = next(e for e in driven if "limiting" in e.get("class", ""))
    assert flat.get("y1") == flat.get("y2")
    keys = [e.text for e in svg.iter("text") if "key" in e.get("class", "")]
    assert keys == ["U = 0", "U = 0.65 V"]


@pytest.mark.parametrize("dG", [-3.0, 6.0])
def test_diagram_of_an_odd_surface_stays_inside(dG: float) -> None:
    svg = ET.fromstring(draw_diagram(slab(O=dG)))
    for line in svg.iter("line"):
        assert 0 <= float(line.get("y1", "")) <= 225
        assert 0 <= float(line.get("y2", "")) <= 225


def test_computed_potentials_lie_off_the_line(tmp_path: Path) -> None:
    """OH* of Pt(111) at 0.9 eV: min over steps with OOH* 4.1, O* 1.66 is 0.76 V."""
    write_screening(tmp_path, others={"OH": {"Pt(111)": 0.55}})
    view = view_of(tmp_path, ranked=True)
    svg = volcano_of(view)
    platinum = next(p for p in points(svg) if p.get("data-x") == "1.660000")
    assert float(platinum.get("data-y", "")) == pytest.approx(0.76)
