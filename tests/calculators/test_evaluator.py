"""Batches answer like single structures, and one bad structure harms no other."""

import weakref
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

from crack_md.calculators import (
    BatchEvaluator,
    CrackCalculator,
    Langevin,
    Replicas,
    run_together,
)
from crack_md.calculators.batch_size import AtomLimit
from crack_md.calculators.batched import Trajectory
from crack_md.calculators.engine import EagerEngine
from crack_md.errors import ConfigError, CrackError, StructureError
from crack_md.graph import AtomGraph
from crack_md.models.force_field import Prediction
from crack_md.neighbors import build_graph
from tests.calculators.engines import CountingEngine, Memory
from tests.factories import oxygen_slab, tiny_model, water


def structures() -> list[ase.Atoms]:
    """Return cells of several sizes and widths, and one without a cell."""
    cell = bulk("Pt", a=3.9, cubic=True)
    cell.rattle(0.1, seed=1)
    return [water(), oxygen_slab(seed=0), cell, ase.Atoms("O"), oxygen_slab(seed=1)]


def alone(calculator: CrackCalculator, atoms: ase.Atoms) -> dict[str, Any]:
    atoms = atoms.copy()
    atoms.calc = calculator
    atoms.get_potential_energy()
    return dict(calculator.results)


def assert_alike(found: Any, expected: dict[str, Any]) -> None:
    assert not isinstance(found, Exception), found
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_a_batch_answers_like_its_structures_alone(forces: str) -> None:
    calculator = CrackCalculator(tiny_model(forces=forces), device="cpu")
    calculator.models[0].double()
    found = calculator.calculate_many(structures())
    for one, atoms in zip(found, structures(), strict=True):
        assert_alike(one, alone(calculator, atoms))
    has_stress = ["stress" in one for one in found if isinstance(one, dict)]
    assert has_stress == [
        forces == "gradient" and a.cell.rank == 3 for a in structures()
    ]


def test_results_follow_the_order_of_the_structures() -> None:
    evaluator = BatchEvaluator([EagerEngine(tiny_model())])
    order = [3, 0, 4, 1, 2]
    plain = evaluator.calculate_many(structures())
    mixed = evaluator.calculate_many([structures()[place] for place in order])
    for one, place in zip(mixed, order, strict=True):
        assert_alike(one, plain[place])


def test_stress_is_left_out_if_nobody_wants_it() -> None:
    asked = []

    class Engine(EagerEngine):
        def __call__(self, graph: AtomGraph, *, stress: bool = False) -> Prediction:
            asked.append(stress)
            return super().__call__(graph, stress=stress)

    evaluator = BatchEvaluator([Engine(tiny_model())])
    (found,) = evaluator.calculate_many([oxygen_slab()], ["energy", "forces"])
    assert "stress" not in found
    assert "stress" in evaluator.calculate_many([oxygen_slab()])[0]
    assert "stress" not in evaluator.calculate_many([water()])[0]
    assert asked == [False, True, False]


def test_a_committee_answers_with_its_mean_and_spread() -> None:
    models = [tiny_model(seed=seed, neighbors="smooth") for seed in (0, 1)]
    models.append(tiny_model(seed=2, neighbors="strict"))
    calculator = CrackCalculator(models, device="cpu", dtype="float64")
    found = calculator.calculate_many(structures())
    for one, atoms in zip(found, structures(), strict=True):
        assert_alike(one, alone(calculator, atoms))
        members = [
            alone(CrackCalculator(model, device="cpu", dtype="float64"), atoms)
            for model in models
        ]
        energies = [member["energy"] for member in members]
        assert one["energy"] == pytest.approx(np.mean(energies), abs=1e-10)
        assert one["energy_std"] == pytest.approx(np.std(energies, ddof=1), abs=1e-10)


def test_bad_structures_are_errors_of_their_own() -> None:
    good = structures()
    bad = [
        ase.Atoms(),
        ase.Atoms("Pt", [[np.nan, 0, 0]]),
        ase.Atoms("AuPt", [[0, 0, 0], [0, 0, 3]]),
        ase.Atoms("Pt2"),
        ase.Atoms("Pt", pbc=True),
    ]
    engine = CountingEngine(tiny_model())
    evaluator = BatchEvaluator([engine])
    expected = evaluator.calculate_many(good)
    mixed = [atoms for pair in zip(good, bad, strict=True) for atoms in pair]
    found = evaluator.calculate_many(mixed)
    for one, other in zip(found[::2], expected, strict=True):
        assert_alike(one, other)
    messages = ["no atoms", "nan", "does not know Au", "apart", "set the cell"]
    for error, message in zip(found[1::2], messages, strict=True):
        assert isinstance(error, StructureError)
        assert message in str(error)
    assert engine.passes[0] == engine.passes[1]
    assert evaluator.calculate_many([]) == []


def test_answers_that_are_not_finite_are_errors_of_their_own() -> None:
    class Engine(EagerEngine):
        def __call__(self, graph: AtomGraph, *, stress: bool = False) -> Prediction:
            answer = super().__call__(graph, stress=stress)
            light = graph.atomic_numbers == 1
            answer.forces[light] = torch.nan
            return answer

    found = BatchEvaluator([Engine(tiny_model())]).calculate_many(structures())
    assert isinstance(found[0], StructureError)
    assert "forces that are not finite" in str(found[0])
    assert [isinstance(one, dict) for one in found[1:]] == [True] * 4


def test_an_unexpected_error_is_that_of_its_structure() -> None:
    class Engine(EagerEngine):
        def __call__(self, graph: AtomGraph, *, stress: bool = False) -> Prediction:
            if (graph.atomic_numbers == 1).any():
                raise ZeroDivisionError("hydrogen")
            return super().__call__(graph, stress=stress)

    found = BatchEvaluator([Engine(tiny_model())]).calculate_many(structures())
    assert isinstance(found[0], ZeroDivisionError)
    assert [isinstance(one, dict) for one in found[1:]] == [True] * 4


def test_what_makes_graphs_lives_as_long_as_its_trajectory() -> None:
    evaluator = BatchEvaluator([EagerEngine(tiny_model())])
    names = [Trajectory(), Trajectory()]
    asked: list[tuple[int, int]] = []
    makers: list[Any] = []
    for number, name in enumerate(names):
        builders = evaluator.graph_builders(name)
        for rule, build in builders.items():

            def counted(atoms: ase.Atoms, n: int = number, b: Any = build) -> AtomGraph:
                asked.append((n, len(atoms)))
                return b(atoms)

            builders[rule] = counted
            makers.append(counted)
    two = [water(), oxygen_slab()]
    named = evaluator.calculate_many(two, trajectories=names)
    for one, other in zip(named, evaluator.calculate_many(two), strict=True):
        assert_alike(one, other)
    evaluator.calculate_many(two[::-1], trajectories=names[::-1])
    assert asked == [(0, 3), (1, 13), (1, 13), (0, 3)]
    kept = [weakref.ref(counted) for counted in makers]
    del makers, names, name, builders, build, counted
    assert [ref() is None for ref in kept] == [True, True]


def test_tasks_and_replicas_name_what_moves() -> None:
    named = []

    class Calculator(CrackCalculator):
        def calculate_many(self, *arguments: Any, **options: Any) -> Any:
            named.append(options["trajectories"])
            return super().calculate_many(*arguments, **options)

    calculator = Calculator(tiny_model(), device="cpu")
    Replicas([water(), water()], calculator, Langevin(100.0)).run(2)
    assert named[0] == named[1] == named[2]
    assert len(set(named[0])) == 2
    named.clear()

    def task(seed: int, calculator: Any) -> None:
        for atoms in (oxygen_slab(seed=seed), oxygen_slab(seed=seed + 9)):
            atoms.calc = calculator
            atoms.get_forces()

    assert [x for _, x in run_together(task, range(3), calculator)] == [None] * 3
    assert named[0] == named[1]
    assert len(set(named[0])) == 3


def test_engines_must_match() -> None:
    engines = [EagerEngine(tiny_model()), EagerEngine(tiny_model(dtype=torch.float32))]
    for some in ([], engines):
        with pytest.raises(ConfigError, match="one precision"):
            BatchEvaluator(some)


def test_batches_hold_no_more_atoms_than_allowed() -> None:
    engine = CountingEngine(tiny_model())
    evaluator = BatchEvaluator([engine], atoms_per_batch=30)
    slabs = [oxygen_slab(seed=seed) for seed in range(5)]
    found = evaluator.calculate_many(slabs)
    assert engine.passes == [13, 26, 26]
    whole = BatchEvaluator([EagerEngine(tiny_model())], atoms_per_batch=100)
    for one, other in zip(found, whole.calculate_many(slabs), strict=True):
        assert_alike(one, other)
    with pytest.raises(ConfigError, match="atoms_per_batch is 0"):
        BatchEvaluator([engine], atoms_per_batch=0)


def test_batches_that_do_not_fit_are_halved_and_nothing_is_lost() -> None:
    engine = CountingEngine(tiny_model(), room=30)
    evaluator = BatchEvaluator([engine], atoms_per_batch=1000)
    slabs = [oxygen_slab(seed=seed) for seed in range(8)]
    found = evaluator.calculate_many(slabs)
    whole = BatchEvaluator([EagerEngine(tiny_model())], atoms_per_batch=1000)
    for one, other in zip(found, whole.calculate_many(slabs), strict=True):
        assert_alike(one, other)
    assert engine.refused == [104, 52, 52]
    assert engine.passes == [26] * 4
    evaluator.calculate_many(slabs)
    assert engine.refused == [104, 52, 52], "it has learned what fits"


def test_the_largest_structure_alone_shows_how_much_memory_is_needed() -> None:
    engine = CountingEngine(tiny_model())
    evaluator = BatchEvaluator([engine])
    evaluator.limit = AtomLimit(memory=Memory(free=26 * 16 * 100, taken=13 * 16 * 80))
    found = evaluator.calculate_many([water()] + [oxygen_slab()] * 3)
    assert all(isinstance(one, dict) for one in found)
    # 80 bytes per entry, 80 % of the memory: 26 atoms with rows of 16
    width = build_graph(oxygen_slab(), engine.model.rule).mask.shape[1]
    assert evaluator.limit.atoms(width) == 26 * 16 // width
    assert engine.passes == [13, 13, 16]


def test_a_structure_that_never_fits_fails_alone() -> None:
    engine = CountingEngine(tiny_model(), room=30)
    evaluator = BatchEvaluator([engine], atoms_per_batch=1000)
    found = evaluator.calculate_many([water(), oxygen_slab() * (2, 2, 1), water()])
    assert isinstance(found[1], CrackError)
    assert "ran out of memory on 52 atoms" in str(found[1])
    assert_alike(found[0], found[2])
    engine.refused.clear()
    evaluator.calculate_many([oxygen_slab()] * 2)
    assert engine.refused == []
