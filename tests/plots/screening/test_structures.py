"""Pictures of structures: not blank, the adsorbate in sight, the same every time."""

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, fcc111, molecule
from matplotlib.image import imread

from crack_md.plots.screening.candidates import data_uri, picture
from crack_md.plots.screening.report import templates


def covered(size: tuple[int, int, int] = (2, 2, 4)) -> Atoms:
    atoms = fcc111("Pt", size, a=3.97, vacuum=8.0, periodic=True)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    return atoms


def red(image: bytes) -> np.ndarray:
    """Return which pixels have the color of oxygen."""
    pixels = imread(io.BytesIO(image))
    return (
        (pixels[..., 0] > 0.9)
        & (pixels[..., 1] < 0.5)
        & (pixels[..., 2] < 0.5)
        & (pixels[..., 3] > 0.9)
    )


@pytest.mark.parametrize("view", ["top", "side"])
@pytest.mark.parametrize("size", [(1, 1, 3), (2, 2, 4), (4, 6, 6)])
def test_adsorbate_and_atoms_are_seen(view: str, size: tuple[int, int, int]) -> None:
    image = picture(covered(size), view)
    pixels = imread(io.BytesIO(image))
    assert pixels.shape == (400, 400, 4)
    assert 0.2 < np.mean(pixels[..., 3] > 0.5) <= 1.0  # drawn on
    share = np.mean(red(image))
    assert share > (0.0005 if view == "side" else 0.001)


def test_small_cells_are_repeated_until_the_picture_is_full() -> None:
    pixels = imread(io.BytesIO(picture(covered((1, 1, 3)), "top")))
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1], 3]
    assert np.all(corners > 0.5)


def test_adsorbate_is_at_the_top_of_the_side_view() -> None:
    rows = np.flatnonzero(red(picture(covered(), "side")).any(axis=1))
    solid = imread(io.BytesIO(picture(covered(), "side")))[..., 3] > 0.5
    filled = np.flatnonzero(solid.any(axis=1))
    assert rows.min() <= filled.min() + 3


def test_where_the_slab_sits_in_its_cell_does_not_matter() -> None:
    atoms = covered()
    moved = atoms.copy()
    moved.translate(atoms.cell[0] + [0, 0, 3.0])
    assert picture(moved, "side") == picture(atoms, "side")
    assert picture(moved, "top") == picture(atoms, "top")


def test_other_cells_and_the_input_is_left_alone() -> None:
    atoms = fcc100("Cu", (2, 3, 3), vacuum=6.0)  # not periodic, no fixed atoms
    add_adsorbate(atoms, molecule("OH"), 1.5, "hollow")
    before = atoms.copy()
    pictures = {view: data_uri(picture(atoms, view)) for view in ("top", "side")}
    markup = (
        templates().get_template("macros.html").module.slab_pictures("a <b>", pictures)
    )
    assert atoms == before
    assert markup.count('src="data:image/png;base64,') == 2
    assert "a &lt;b&gt;, top view" in markup
