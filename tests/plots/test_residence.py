import numpy as np
import pytest
from ase.build import fcc111
from matplotlib.figure import Figure

from crack_md.plots.residence import (
    draw_displacement,
    draw_path_over_slab,
    draw_timeline,
    residence_png,
)
from crack_md.workflows.md.residence import Diffusion, Hop, Place, Residence, Stay


def residence() -> Residence:
    places = tuple(
        Place(label, np.zeros(3), np.array([0])) for label in ("fcc", "hcp-Pt3/Pt")
    )
    occupied = np.array([-1, 0, 0, 1, 1, 0, 0, 0, 0, 0])
    stays = (
        Stay("fcc", "Pt3/Pt3", 4, 700.0, 7 / 9, 1, 700.0, 700.0),
        Stay("hcp-Pt3/Pt", "Pt3/Pt", 4, 200.0, 2 / 9, 1, 200.0, 200.0),
        Stay("4fold", "Pt4", 1, 0.0, 0.0, 0, None, None),
    )
    return Residence(places, occupied, stays, (Hop(300, 0, 1), Hop(500, 1, 0)), 100.0)


def diffusion() -> Diffusion:
    lag = np.linspace(10, 500, 25)
    return Diffusion(2.5e-5, 1e-6, lag, 0.1 + 4 * 2.5e-4 * lag, 4)


def test_spans_of_the_timeline_are_the_stays():
    axes = Figure().add_subplot()
    draw_timeline(axes, residence())
    spans = [
        [(path.get_extents().x0, path.get_extents().x1) for path in c.get_paths()]
        for c in axes.collections
    ]
    assert spans[0] == [pytest.approx((0.3, 0.5))]
    assert spans[1] == [pytest.approx((0.1, 0.3)), pytest.approx((0.5, 1.0))]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["hcp-Pt3/Pt", "fcc  Pt3/Pt3"]
    captions = [text.get_text() for text in axes.texts]
    assert captions[1] == "78 %, 0.70 ± 0.70 ps a stay"
    assert axes.get_title(loc="left") == "2 hops"


def test_displacement_shows_the_line_of_the_coefficient():
    axes = Figure().add_subplot()
    draw_displacement(axes, diffusion(), n_hops=2)
    points, line = axes.lines
    slope = np.ptp(line.get_ydata()) / np.ptp(line.get_xdata())
    assert slope == pytest.approx(1.0)  # Å²/ps
    assert min(line.get_xdata()) >= 0.1
    assert len(points.get_xdata()) == 25
    assert axes.get_title(loc="left") == "D = (2.5 ± 0.1) · 10⁻⁵ cm²/s"


def test_without_a_hop_there_is_no_coefficient():
    axes = Figure().add_subplot()
    draw_displacement(axes, diffusion(), n_hops=0)
    assert axes.get_title(loc="left") == "no hop, no diffusion"
    assert len(axes.lines) == 1


def test_surface_covers_the_path_beyond_the_cell():
    slab = fcc111("Pt", (2, 2, 3), vacuum=6.0, periodic=True)
    path = np.stack([np.linspace(0, 20, 50), np.linspace(0, 5, 50)], axis=1)
    axes = Figure().add_subplot()
    draw_path_over_slab(axes, slab, path, 5.0)
    centers = np.array([patch.get_center() for patch in axes.patches])
    for point in path:
        assert np.linalg.norm(centers - point, axis=1).min() < 1.7


def test_image_is_made():
    slab = fcc111("Pt", (2, 2, 3), vacuum=6.0, periodic=True)
    path = np.random.default_rng(0).random((10, 2))
    image = residence_png(slab, path, residence(), diffusion(), title="O")
    assert image.startswith(b"\x89PNG")
