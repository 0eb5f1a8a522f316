import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from crack_md.plots.orr import draw_volcano, volcano_png
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.store import RelaxationRecord
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.results import ScreenResult, SiteResult, SlabResult
from crack_md.workflows.screening.screen import rank

METALS = {
    "Ni(111)": 0.35,
    "Rh(111)": 0.55,
    "Cu(111)": 1.07,
    "Pd(111)": 1.55,
    "Pt(111)": 1.62,
    "Pt/Pd(111)": 1.68,
    "Pt3Ni(111)": 1.70,
    "Ag(111)": 2.05,
    "Au(111)": 2.61,
}


def screening(energies: dict[str, float]) -> ScreenResult:
    slabs = []
    for name, energy in energies.items():
        record = RelaxationRecord(
            "0", name, "fcc", "converged", energy=0.0, adsorbate="O"
        )
        formula = name.split("(")[0].replace("/", "").replace("3", "")
        site = SiteResult(record, "", 1, energy, energy + 0.04)
        slabs.append(SlabResult(name, formula, "ok", sites=(site,)))
    ranked = rank(slabs, ScreenSettings())
    failed = SlabResult("bulk", "Pt4", "no_surface", "no vacuum")
    model = ModelInfo("test", "0", "total")
    return ScreenResult((*ranked, failed), model, ScreenSettings(), None, "", 0, 0)


def test_apex_and_points_are_where_the_formula_puts_them() -> None:
    axes = draw_volcano(screening(METALS)).axes[0]
    curve = axes.lines[0].get_xydata()
    apex = curve[curve[:, 1].argmax()]
    assert apex == pytest.approx([1.72, 0.86], abs=0.005)
    offsets = [np.ma.getdata(dots.get_offsets()) for dots in axes.collections[1:]]
    points = np.concatenate(offsets)
    expected = sorted(energy + 0.04 for energy in METALS.values())
    assert np.sort(points[:, 0]) == pytest.approx(expected)
    assert points[:, 1] == pytest.approx(
        np.minimum(1.72 - points[:, 0] / 2, points[:, 0] / 2)
    )


def test_names_do_not_cover_each_other() -> None:
    figure = draw_volcano(screening(METALS))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = [text for text in axes.texts if text.get_text() in METALS]
    assert len(names) == len(METALS)

    def overlap(first: Text, second: Text) -> bool:
        return bool(first.get_window_extent().overlaps(second.get_window_extent()))

    for number, text in enumerate(names):
        assert not any(overlap(text, other) for other in names[:number])


def test_image_is_not_blank_and_repeats_to_the_byte() -> None:
    image = volcano_png(screening(METALS))
    pixels = imread(io.BytesIO(image))
    assert pixels.shape == (960, 1440, 4)
    assert 0.02 < np.mean(pixels[..., :3].min(axis=-1) < 0.9) < 0.5
    assert volcano_png(screening(METALS)) == image


@pytest.mark.parametrize("energies", [{}, {"Pt(111)": 1.62}, {"Os": -3.0, "Hg": 5.0}])
def test_any_number_and_range_of_points(energies: dict[str, float]) -> None:
    axes = draw_volcano(screening(energies)).axes[0]
    low, high = axes.get_xlim()
    assert all(low < energy < high for energy in energies.values())
    assert low < 1.72 < high


def test_leaves_global_settings_alone() -> None:
    before = dict(mpl.rcParams)
    volcano_png(screening(METALS))
    assert dict(mpl.rcParams) == before
