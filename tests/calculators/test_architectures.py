"""Students of every architecture through the calculators and the trainer."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from crack_md import CrackCalculator
from crack_md.calculators.crack import training_statistics
from crack_md.calculators.engine import CompiledEngine
from crack_md.calculators.replicas.langevin import Langevin
from crack_md.calculators.replicas.replicas import Replicas
from crack_md.graph import batch_graphs
from tests.factories import graph_of, oxygen_slab
from tests.models.test_architectures import model_of

NAMES = ["ace", "painn", "equiformer_v2"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_compiled_answers_are_those_of_the_model(name: str) -> None:
    torch._dynamo.reset()
    model = model_of(name)
    engine = CompiledEngine(model, backend="eager")
    for seed in (1, 2):
        near = oxygen_slab(seed=seed)
        near.positions[-1, 2] -= 0.4  # the repulsion is compiled, too
        graph = batch_graphs([graph_of(model, one) for one in (near, oxygen_slab())])
        with torch.no_grad():
            found, expected = (e(graph, stress=True) for e in (engine, model))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    assert engine.n_compiled == 1


def test_replicas_move_as_if_alone(name: str) -> None:
    calculator = CrackCalculator(model_of(name), dtype="float64", device="cpu")
    dynamics = Langevin(temperature_K=300.0, friction_per_ps=1.0, timestep_fs=1.0)
    starts = [oxygen_slab(rattle=0.02, seed=1), bulk("Cu", cubic=True)]
    together = Replicas(starts, calculator, dynamics, seeds=[4, 5])
    together.run(3)
    for number, start in enumerate(starts):
        alone = Replicas([start], calculator, dynamics, seeds=[4 + number])
        alone.run(3)
        rows = together.atoms.rows(number)
        np.testing.assert_allclose(
            together.state.positions[rows], alone.state.positions, atol=1e-9
        )


def test_the_calculator_answers_with_stress_and_statistics(name: str) -> None:
    model = model_of(name)
    atoms = oxygen_slab()
    atoms.calc = CrackCalculator(model, dtype="float64", device="cpu")
    with torch.no_grad():
        expected = model(graph_of(model, atoms), stress=True)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy.item())
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-9)
    assert atoms.get_stress()[2] == pytest.approx(expected.stress[0, 2, 2].item())
    statistics = training_statistics(model, [oxygen_slab(seed=s) for s in range(3)])
    channels = model.network.config.feature_channels
    assert statistics.elements[78].mean.shape == (channels,)
