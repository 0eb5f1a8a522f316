"""Compiled engines: fixed shapes, no second compilation, and a way out."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.md.verlet import VelocityVerlet
from torch._dynamo.utils import counters

from crack_md import CrackCalculator
from crack_md.calculators.engine import (
    CompiledEngine,
    bucket_of,
    largest_difference,
)
from crack_md.graph import batch_graphs, padded_graph
from crack_md.models.force_field import ForceField, with_products_in
from tests.factories import graph_of, oxygen_slab, tiny_model, water

KINDS = [("smooth", "gradient"), ("strict", "direct")]


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    counters.clear()


def quick(model: ForceField) -> CompiledEngine:
    """Return an engine that traces as always and leaves out the code generator."""
    return CompiledEngine(model, backend="eager")


@pytest.mark.parametrize(
    ("n_atoms", "bucket"),
    [(1, 8), (8, 8), (9, 16), (46, 48), (48, 48), (49, 56), (65, 72), (81, 88)],
)
def test_buckets(n_atoms: int, bucket: int) -> None:
    assert bucket_of(n_atoms) == bucket


def test_buckets_waste_an_eighth_at_most() -> None:
    for n_atoms in range(64, 5000, 7):
        assert n_atoms <= bucket_of(n_atoms) <= 1.125 * n_atoms + 8


@pytest.mark.parametrize(("rule", "forces"), KINDS)
def test_padding_changes_no_result(rule: str, forces: str) -> None:
    model = tiny_model(neighbors=rule, forces=forces)
    graph = batch_graphs([graph_of(model, a) for a in (oxygen_slab(), water())])
    with torch.no_grad():
        plain = model(graph)
        padded = model(padded_graph(graph, 24, graph.mask.shape[1] + 3))
    torch.testing.assert_close(padded.energy[:2], plain.energy)
    torch.testing.assert_close(padded.forces[: graph.n_atoms], plain.forces)
    assert padded.forces.shape == (24, 3)


@pytest.mark.parametrize(("rule", "forces"), KINDS)
def test_compiled_answers_are_those_of_the_model(rule: str, forces: str) -> None:
    model = tiny_model(neighbors=rule, forces=forces)
    engine = quick(model)
    stress = forces == "gradient"
    for atoms in (oxygen_slab(seed=1), oxygen_slab(seed=2)):
        graph = graph_of(model, atoms)
        with torch.no_grad():
            found, expected = (e(graph, stress=stress) for e in (engine, model))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    assert engine.n_compiled == 1


@pytest.mark.parametrize(("rule", "forces"), KINDS)
def test_a_thousand_steps_of_dynamics_compile_once(rule: str, forces: str) -> None:
    """Atoms leave and enter the cutoff all the time; no shape may follow them."""
    model = tiny_model(neighbors=rule, forces=forces, dtype=torch.float32)
    atoms = oxygen_slab(rattle=0.05)
    atoms.calc = CrackCalculator(model, compile=False)
    atoms.calc.engines[:] = [quick(atoms.calc.models[0])]
    atoms.set_velocities(0.02 * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    edges = set()
    for _ in range(20):
        dynamics.run(50)
        edges.add(graph_of(model, atoms).mask.sum().item())
    assert atoms.calc.engines[0].n_compiled == 1
    assert counters["stats"]["unique_graphs"] == 1
    assert counters["graph_break"] == {}
    assert len(edges) > 1 or rule == "strict"


def sparse_slab(seed: int = 0) -> ase.Atoms:
    """Return a slab below atoms that have few neighbors: rows of unlike width."""
    slab = oxygen_slab(seed=seed)
    chain = ase.Atoms("O4", [[1.0 + 2.2 * i, 1.0, 0.0] for i in range(4)])
    chain.positions[:, 2] = slab.positions[:, 2].max() + 4.0
    slab.cell[2, 2] += 8.0
    return slab + chain


@pytest.mark.parametrize("stress", [False, True])
def test_compiled_code_works_on_edges_not_on_empty_slots(*, stress: bool) -> None:
    model = tiny_model(neighbors="smooth", forces="gradient")
    engine = quick(model)
    for seed in (1, 2):
        graph = graph_of(model, sparse_slab(seed))
        with torch.no_grad():
            found, expected = (e(graph, stress=stress) for e in (engine, model))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    (shape,) = engine.start_up_s
    assert shape.n_edges is not None
    assert graph.most_edges is not None
    assert graph.most_edges <= shape.n_edges <= 1.125 * graph.most_edges + 64
    assert counters["stats"]["unique_graphs"] == 1
    assert shape.n_edges < 0.9 * shape.n_atoms * shape.width


def test_batches_leave_empty_slots_out_too() -> None:
    model = tiny_model(neighbors="smooth", forces="gradient")
    engine = quick(model)
    batches = [[sparse_slab(1), sparse_slab(2), water()], [sparse_slab(3), water()]]
    for structures in batches:
        graph = batch_graphs([graph_of(model, atoms) for atoms in structures])
        with torch.no_grad():
            found, expected = engine(graph), model(graph)
        torch.testing.assert_close(found.energy, expected.energy)
        torch.testing.assert_close(found.forces, expected.forces)
    assert all(shape.n_edges is not None for shape in engine.start_up_s)


def test_a_graph_of_unknown_edges_takes_the_whole_table() -> None:
    model = tiny_model(neighbors="smooth", forces="gradient")
    engine = quick(model)
    graph = graph_of(model, sparse_slab())._replace(most_edges=None)
    with torch.no_grad():
        torch.testing.assert_close(engine(graph).forces, model(graph).forces)
    (shape,) = engine.start_up_s
    assert shape.n_edges is None


def test_what_compiling_took_is_told() -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu")
    assert calculator.start_up_s == 0
    calculator.engines[:] = [quick(calculator.models[0])]
    for atoms in (oxygen_slab(), water(), oxygen_slab(seed=1)):
        calculator.calculate_many([atoms])
    by_shape = calculator.engines[0].start_up_s
    assert [shape.n_atoms for shape in by_shape] == [16, 8]
    assert calculator.start_up_s == sum(by_shape.values()) > 0


def test_other_sizes_get_code_of_their_own() -> None:
    model = tiny_model()
    engine = quick(model)
    for atoms in (oxygen_slab(), oxygen_slab() * (2, 1, 1), oxygen_slab()):
        with torch.no_grad():
            engine(graph_of(model, atoms))
    assert engine.n_compiled == 2
    assert counters["stats"]["unique_graphs"] == 2


def test_pytorch_may_compile_more_shapes_than_its_own_limit() -> None:
    model = tiny_model()
    engine = quick(model)
    with torch._dynamo.config.patch(recompile_limit=1), torch.no_grad():
        engine(graph_of(model, water()))
        engine(graph_of(model, oxygen_slab()))
    assert engine.n_compiled == 2


def test_batches_share_shapes_up_to_twice_their_size() -> None:
    model = tiny_model()
    engine = quick(model)
    for count, n_compiled in ((7, 1), (8, 1), (6, 1), (5, 1), (3, 2), (2, 2)):
        slabs = [water(), *(oxygen_slab(seed=seed) for seed in range(count))]
        graph = graph_of(model, *slabs)
        with torch.no_grad():
            found, expected = (e(graph, stress=False) for e in (engine, model))
        torch.testing.assert_close(found.energy, expected.energy)
        torch.testing.assert_close(found.forces, expected.forces)
        assert engine.n_compiled == n_compiled
        assert counters["stats"]["unique_graphs"] == n_compiled


def test_running_out_of_memory_does_not_end_compiled_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    engine = quick(model)

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError

    graph = graph_of(model, oxygen_slab())
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_evaluate", exhausted)
        with pytest.raises(torch.OutOfMemoryError):
            engine(graph)
    with torch.no_grad():
        engine(graph)
    assert engine.n_compiled == 1


def test_a_compiler_that_fails_leaves_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler found\nand a page of advice")

    monkeypatch.setattr(CompiledEngine, "_evaluate", fail)
    engine = quick(model)
    graph = graph_of(model, oxygen_slab())
    with torch.no_grad():
        with pytest.warns(UserWarning, match=r"RuntimeError: no C.* goes on uncompil"):
            found = engine(graph)
        torch.testing.assert_close(found.forces, engine(graph).forces)
        torch.testing.assert_close(found.forces, model(graph).forces)


def test_wrong_code_is_found_at_the_first_call() -> None:
    model = tiny_model()

    def wrong(module: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        """Compile to what is larger by 1 % in all that is not an integer."""
        return lambda *given: [
            1.01 * one if torch.is_floating_point(one) else one
            for one in module(*given)
        ]

    engine = CompiledEngine(model, backend=wrong)
    graph = graph_of(model, oxygen_slab())
    with torch.no_grad():
        with pytest.warns(UserWarning, match="differs from itself by"):
            found = engine(graph)
        torch.testing.assert_close(found.energy, model(graph).energy)


def test_rounded_products_are_compared_as_such() -> None:
    exact = tiny_model(dtype=torch.float32)
    rounded = with_products_in(exact, torch.bfloat16)
    assert largest_difference(exact) == 2e-4
    assert largest_difference(rounded) == 2e-2
    engine = quick(rounded)
    with torch.no_grad():
        engine(graph_of(rounded, oxygen_slab()))
    assert engine.n_compiled == 1


def test_copies_and_pickles_compile_for_themselves() -> None:
    calculator = CrackCalculator(tiny_model(), compile=False)
    calculator.engines[:] = [quick(calculator.models[0])]
    energies = []
    for one in (calculator, copy.deepcopy(calculator)):
        atoms = oxygen_slab()
        atoms.calc = one
        energies.append(atoms.get_potential_energy())
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)
    assert calculator.engines[0].n_compiled == 1
    loaded = pickle.loads(pickle.dumps(calculator))
    assert isinstance(loaded.engines[0], CompiledEngine)
    assert loaded.engines[0].n_compiled == 0
