"""The short form: some of the random cells, and one that took minutes."""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from crack_md.neighbors import SmoothNeighbors
from tests.soak import neighbors
from tests.soak.records import sweep


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(number=st.integers(0, 10**9))
def test_random_cells_equal_a_search_of_every_image(number: int) -> None:
    assert not neighbors.try_cells(number, number + 1)["wrong"]


def test_ties_at_the_radius_belong_to_the_strict_rule() -> None:
    """This cell has a pair 5e-6 Å beyond it, which is the radius in steps of 1e-5 Å."""
    assert not neighbors.try_cells(19894, 19895)["wrong"]


def test_a_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    begun = []

    def count(begin: int, end: int) -> dict[str, Any]:
        begun.append(begin)
        return {"cases": end - begin, "wrong": [begin] if begin == 250 else []}

    assert sweep(tmp_path, 150, count)["cases"] == 150
    found = sweep(tmp_path, 500, count)
    assert begun == [0, 100, 150, 250, 350, 450]
    assert (found["cases"], found["wrong"]) == (500, [250])


def test_atoms_far_apart_beside_an_open_vector_that_leans() -> None:
    """Hoppings of 1e5 cells; vesin alone took minutes over them."""
    cell = [[-3.6, -1.0, -0.5], [-0.1, -5.0, -0.9], [0.6, -0.3, -3.2]]
    places = np.random.default_rng(3).uniform(0, 1, (10, 3))
    near = Atoms("Pt10", places @ cell, cell=cell, pbc=[False, True, True])
    far = near.copy()
    hops = np.random.default_rng(4).integers(-100_000, 100_000, (10, 3)) * [0, 1, 1]
    far.positions += hops @ far.cell.array
    rule = SmoothNeighbors(4.0)
    expected = neighbors.every_image(near, rule)
    moved = [
        [(steps, j, *(np.array(s) - hops[j] + hops[i])) for steps, j, *s in row]
        for i, row in enumerate(expected)
    ]
    found = neighbors.table_rows(far, rule)
    assert sum(map(len, found)) > 100
    for row, wanted in zip(found, moved, strict=True):
        # ties may change places: the positions are rounded to 1e-10 Å
        assert {entry[1:] for entry in row} == {entry[1:] for entry in wanted}
