from pathlib import Path

import ase
import numpy as np
import pytest
import torch

from crack_md.bench.cold_start import cold_start
from crack_md.bench.speed import SpeedTest, platinum_slab
from crack_md.errors import CrackError, StructureError
from crack_md.models.checkpoint import save_model
from tests.calculators.engines import CountingEngine
from tests.factories import oxygen_slab, tiny_model


@pytest.fixture
def student(tmp_path: Path) -> str:
    save_model(tiny_model(dtype=torch.float32), tmp_path / "student.pt")
    return str(tmp_path / "student.pt")


@pytest.mark.parametrize(
    ("asked", "found"), [(2, 6), (46, 46), (81, 81), (150, 151), (1000, 981)]
)
def test_slabs_have_about_as_many_atoms_as_asked(asked: int, found: int) -> None:
    atoms = platinum_slab(asked)
    assert len(atoms) == found
    assert atoms.symbols.count("O") == 1
    assert atoms.pbc.all()


def test_a_batch_takes_the_passes_of_the_calculator(student: str) -> None:
    """5,120 entries share a pass on a CPU: 24 slabs of 13 atoms, 24 each, need two."""
    test = SpeedTest(student, device="cpu", repeats=1)
    engine = CountingEngine(test.calculator.models[0])
    test.calculator.engines[:] = [engine]
    test.batch(oxygen_slab(), 24, name="slabs")
    assert engine.passes == 3 * [156, 156], "first call, second call, one repeat"


def test_a_structure_that_is_refused_ends_a_batch(student: str) -> None:
    test = SpeedTest(student, device="cpu", repeats=1)
    with pytest.raises(StructureError, match="does not know Au"):
        test.batch(ase.Atoms("Au"), 2, name="gold")


def test_speed_of_one_and_of_many(student: str) -> None:
    test = SpeedTest(student, device="cpu", repeats=3)
    one = test.single(oxygen_slab(), name="slab")
    assert (one.name, one.n_atoms, one.n_structures) == ("slab", 13, 1)
    assert one.latency.n_calls == 3
    assert one.latency.low_s <= one.latency.median_s <= one.latency.high_s
    assert one.atom_steps_per_s == 13 / one.latency.median_s
    assert one.ns_per_day == pytest.approx(0.0864 / one.latency.median_s)
    many = test.batch(oxygen_slab(), 4, name="slabs")
    assert (many.n_atoms, many.n_structures, many.ns_per_day) == (52, 4, None)


def test_slow_structures_are_called_less(student: str) -> None:
    test = SpeedTest(student, device="cpu", repeats=50, limit_s=1e-9)
    assert test.single(oxygen_slab(), name="slab").latency.n_calls == 1


def test_measuring_leaves_the_structure_alone(student: str) -> None:
    atoms = oxygen_slab()
    before = atoms.positions.copy()
    SpeedTest(student, device="cpu", repeats=1).single(atoms, name="slab")
    np.testing.assert_array_equal(atoms.positions, before)


def test_a_fresh_process_is_timed_until_its_first_result(student: str) -> None:
    found = cold_start(student, oxygen_slab(), device="cpu")
    assert found.import_s > 0
    assert found.load_s > 0
    assert found.first_s > 0
    assert found.total_s == found.import_s + found.load_s + found.first_s
    with pytest.raises(CrackError, match=r"nowhere\.pt"):
        cold_start("nowhere.pt", oxygen_slab())
