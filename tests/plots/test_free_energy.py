import io

import numpy as np
import pytest
from matplotlib.image import imread

from crack_md.plots.orr import draw_free_energy, free_energy_png
from crack_md.workflows.orr import FreeEnergyDiagram, orr_diagram

COMPUTED = FreeEnergyDiagram(3.8, 1.6, 0.7)


def test_levels_are_where_the_diagram_puts_them() -> None:
    left, right = draw_free_energy({"Pt": COMPUTED}).axes
    for axes, potential in ((left, 0.0), (right, 1.23)):
        steps = [line for line in axes.lines if line.get_linewidth() > 2]
        heights = [float(line.get_ydata()[0]) for line in steps]
        assert heights == pytest.approx(COMPUTED.levels(potential))
        assert all(np.ptp(line.get_ydata()) == 0 for line in steps)


def test_inferred_levels_are_dotted() -> None:
    (axes,) = draw_free_energy({"Pt": orr_diagram({"O": 1.6})}, potentials_V=[0]).axes
    steps = [line for line in axes.lines if line.get_linewidth() > 2]
    assert [line.get_linestyle() for line in steps] == ["-", ":", "-", ":", "-"]


def test_legend_names_the_limiting_potentials() -> None:
    axes = draw_free_energy({"Pt": COMPUTED, "Au": orr_diagram({"O": 2.64})}).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["Pt, U_L 0.70 V", "Au, U_L 0.40 V"]


def test_image_is_not_blank_and_repeats_to_the_byte() -> None:
    image = free_energy_png({"Pt": COMPUTED})
    pixels = imread(io.BytesIO(image))
    assert 0.01 < np.mean(pixels[..., :3].min(axis=-1) < 0.9) < 0.5
    assert free_energy_png({"Pt": COMPUTED}) == image
    assert free_energy_png({})


def test_names_with_dollars_and_underscores_are_drawn_as_they_are() -> None:
    """Each a crash or a missing row: mathematics, and a label matplotlib hides."""
    diagram = orr_diagram({"O": 1.6})
    names = ("$\\frac{$", "_hidden", "a$b$c")
    figure = draw_free_energy(dict.fromkeys(names, diagram))
    figure.draw_without_rendering()
    legend = figure.axes[0].get_legend()
    assert legend is not None
    shown = [text.get_text().strip() for text in legend.get_texts()]
    assert shown == [f"{name}, U_L 0.80 V" for name in names]
