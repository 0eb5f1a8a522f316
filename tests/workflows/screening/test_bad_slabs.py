"""Whatever the structure, planning it ends in a row: with starts, or with a reason."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.constraints import FixedLine, FixInternals, Hookean

from crack_md.structures import StructureEntry
from crack_md.workflows.screening import plan as plan_module
from crack_md.workflows.screening.plan import SlabPlan, plan_slab
from tests.workflows.screening.small_screenings import EMT_MODEL, fast

STATUSES = {
    *("ok", "bad_structure", "no_surface", "has_adsorbate", "surface_fixed"),
    *("unsupported_constraint", "unknown_element"),
}


def copper(layers: int = 2, **options: object) -> Atoms:
    return fcc111("Cu", (1, 1, layers), **{"vacuum": 7.0, **options})


def cells() -> Iterator[Atoms]:
    """Yield cells that are flat, empty, left-handed, skewed, tiny or not finite."""
    for vectors in (
        np.zeros((3, 3)),
        np.diag([2.5, 2.5, 0.0]),
        np.diag([2.5, 2.5, -20.0]),
        np.diag([1e-3, 1e-3, 20.0]),
        np.diag([2.5, 2.5, np.inf]),
        np.diag([2.5, 2.5, 1e6]),
        [[2.5, 0, 0], [2.5, 0, 0], [0, 0, 20]],
        [[2.5, 0, 0], [24.9, 0.2, 0], [3, 5, 20]],
        [[0, 2.5, 0], [2.5, 0, 0], [0, 0, 20]],
    ):
        atoms = copper()
        atoms.set_cell(vectors)
        yield atoms


def structures() -> Iterator[Atoms]:
    for pbc in itertools.product([False, True], repeat=3):
        for atoms in (copper(), copper(1), Atoms("Cu", cell=[2.5, 2.5, 20])):
            atoms.pbc = pbc
            yield atoms
        for atoms in cells():
            atoms.pbc = pbc
            yield atoms
    yield from (Atoms(), Atoms("X", cell=[9, 9, 9], pbc=True), molecule("CH3OH"))
    for constraint in (
        FixedLine(0, [0, 0, 1]),
        Hookean(0, 1, k=5.0, rt=1.0),
        FixInternals(bonds=[[2.5, [0, 1]]]),
    ):
        for axis in (2, 0):
            atoms = copper(4)
            atoms.set_constraint(constraint)
            if axis == 0:
                atoms.rotate(90, "y", rotate_cell=True)
            yield atoms
    for tags in ([0, 1, 2, 3], [2, 2, 2, 2], [-1, 0, 0, 7]):
        atoms = copper(4)
        atoms.set_tags(tags)
        yield atoms
    gas = copper(4)
    gas += Atoms("He", [gas.cell.sum(axis=0) / 2])
    yield gas


def planned(atoms: Atoms) -> SlabPlan:
    return plan_slab(StructureEntry("it", atoms), model=EMT_MODEL, settings=fast())


@pytest.mark.parametrize("number", range(len(list(structures()))))
def test_every_structure_has_starts_or_a_reason(number: int) -> None:
    atoms = next(itertools.islice(structures(), number, None))
    plan = planned(atoms)
    assert plan.status in STATUSES
    assert bool(plan.starts) == (plan.status == "ok")
    assert bool(plan.error) == (plan.status != "ok")
    assert "\n" not in plan.error


def test_an_error_nobody_thought_of_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("in a\nlibrary")

    monkeypatch.setattr(plan_module, "find_sites", fail)
    plan = planned(copper())
    assert plan.status == "failed"
    assert plan.error == "ZeroDivisionError: in a library"
    assert plan.slab is None
