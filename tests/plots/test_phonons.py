import numpy as np
import pytest
from matplotlib.colors import to_hex

from crack_md.plots.phonons import bands_png, draw_bands
from crack_md.plots.style import RED
from crack_md.workflows.phonons.settings import (
    DensityOfStates,
    Phonons,
    Segment,
    Thermodynamics,
)


def phonons(*, scale: float = 1.0, lowest: float = 0.0) -> Phonons:
    """Return three made-up segments, with a jump from U to K."""
    ends = [("Γ", "X"), ("X", "U"), ("K", "Γ")]
    segments = []
    for number, labels in enumerate(ends):
        distance = scale * np.linspace(number, number + 1, 5)
        low, high = np.linspace(lowest, 2, 5), np.linspace(1, 8, 5)
        segments.append(
            Segment(labels, np.zeros((5, 3)), distance, np.stack([low, high], axis=1))
        )
    zero = np.zeros(2)
    return Phonons(
        tuple(segments),
        DensityOfStates(np.linspace(lowest, 8, 9), np.ones(9)),
        Thermodynamics(zero, zero, zero, zero, 0.0),
        (),
        0.0,
        0.0,
        1,
        (2, 2, 2),
    )


def test_points_are_named_where_they_lie():
    left, right = draw_bands({"student": phonons(scale=0.5)}).axes
    labels = [text.get_text() for text in left.get_xticklabels()]
    assert labels == ["Γ", "X", "U|K", "Γ"]
    assert left.get_xticks() == pytest.approx([0, 0.5, 1.0, 1.5])
    assert left.get_ylim()[0] == 0.0
    assert right.get_xlabel() == "states / THz"
    assert left.get_legend() is None


def test_two_models_share_one_path():
    """Another lattice constant stretches the path; points still meet."""
    models = {"student": phonons(), "teacher": phonons(scale=1.1)}
    left, _ = draw_bands(models, title="Pt").axes
    legend = left.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["student", "teacher"]
    ends = {
        round(max(line.get_xdata()), 6) for line in left.lines if len(line.get_xdata())
    }
    assert max(ends) == 3.0
    assert left.get_title(loc="left") == "Pt"


def test_imaginary_modes_are_red_and_inside():
    left, _ = draw_bands({"student": phonons(lowest=-1.5)}).axes
    assert left.get_ylim()[0] < -1.5
    red = [line for line in left.lines if to_hex(line.get_color()) == RED]
    below = np.concatenate([line.get_ydata() for line in red])
    assert np.nanmin(below) == -1.5
    assert np.nanmax(below) < 0
    assert any("imaginary" in text.get_text() for text in left.texts)


def test_image_is_the_same_every_time():
    image = bands_png({"student": phonons()})
    assert image.startswith(b"\x89PNG")
    assert image == bands_png({"student": phonons()})
