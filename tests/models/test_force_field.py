import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

from crack_md.graph import AtomGraph
from crack_md.models.force_field import EnergyScale
from crack_md.neighbors import build_graph
from tests.factories import graph_of, oxygen_slab, tiny_model, water

STEP = 1e-4
"""Å or strain; the error of central differences is STEP² times a third derivative."""


def energy(atoms: ase.Atoms, **changes: str) -> float:
    model = tiny_model(**changes)
    with torch.no_grad():
        return model(graph_of(model, atoms)).energy.item()


def octahedron() -> ase.Atoms:
    """Return an atom with neighbors along ±x, ±y and ±z, poles and seam included."""
    arms = np.concatenate([np.eye(3), -np.eye(3)]) * [
        [2.1],
        [2.2],
        [2.3],
        [2.4],
        [2.5],
        [2.6],
    ]
    return ase.Atoms("PtOPtOCuNiH", [[0, 0, 0], *arms])


@pytest.mark.parametrize("functions", [("gate", "gate"), ("s2", "s2"), ("s2", "grid")])
@pytest.mark.parametrize("structure", [octahedron, water, oxygen_slab])
def test_forces_are_the_slope_of_the_energy(
    structure: type, functions: tuple[str, str]
) -> None:
    changes = {"activation": functions[0], "ffn": functions[1]}
    model = tiny_model(**changes)
    atoms = structure()
    forces = model(graph_of(model, atoms)).forces.numpy()
    chosen = range(len(atoms)) if len(atoms) < 8 else (0, 5, len(atoms) - 1)
    for index in chosen:
        for axis in range(3):
            values = []
            for sign in (-1, 1):
                moved = atoms.copy()
                moved.positions[index, axis] += sign * STEP
                values.append(energy(moved, **changes))
            slope = (values[1] - values[0]) / (2 * STEP)
            assert forces[index, axis] == pytest.approx(-slope, abs=5e-6)


@pytest.mark.parametrize("structure", [oxygen_slab, lambda: bulk("Pt") * (2, 1, 1)])
def test_stress_is_the_slope_of_the_energy_with_strain(structure: type) -> None:
    model = tiny_model()
    atoms = structure()
    atoms.rattle(0.05, seed=1)
    stress = model(graph_of(model, atoms), stress=True).stress[0].numpy()
    np.testing.assert_allclose(stress, stress.T)
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        values = []
        for sign in (-1, 1):
            strain = np.eye(3)
            strain[i, j] += sign * STEP / 2
            strain[j, i] += sign * STEP / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            values.append(energy(moved))
        slope = (values[1] - values[0]) / (2 * STEP) / atoms.cell.volume
        assert stress[i, j] == pytest.approx(slope, abs=1e-7)


def test_energy_is_scaled_and_referenced() -> None:
    scale = EnergyScale(mean=5.0, std=2.0, element_references={1: -1.5, 8: -4.0})
    plain = tiny_model(scale=EnergyScale())
    scaled = tiny_model(scale=scale)
    graph = graph_of(plain, water(), ase.Atoms("O"))
    with torch.no_grad():
        raw = plain(graph).energy
        energies = scaled(graph).energy
    expected = 2.0 * raw + 5.0 + torch.tensor([-7.0, -4.0])
    torch.testing.assert_close(energies, expected)


def test_energies_are_summed_in_float64() -> None:
    scale = EnergyScale(element_references={78: -1e4 - 1e-5})
    model = tiny_model(dtype=torch.float32, scale=scale)
    bare = tiny_model(dtype=torch.float32, scale=EnergyScale())
    graph = graph_of(model, oxygen_slab())
    with torch.no_grad():
        difference = (model(graph).energy - bare(graph).energy).item()
    assert difference == pytest.approx(12 * (-1e4 - 1e-5), abs=1e-9)


def test_precision_of_float32_forces() -> None:
    atoms = oxygen_slab()
    double, single = tiny_model(), tiny_model(dtype=torch.float32)
    exact = double(graph_of(double, atoms)).forces
    rounded = single(graph_of(single, atoms)).forces
    assert (exact - rounded).abs().max() < 1e-5 * exact.abs().max() + 1e-6


def test_direct_models_refuse_stress() -> None:
    model = tiny_model(forces="direct")
    with pytest.raises(ValueError, match="no stress"):
        model(graph_of(model, oxygen_slab()), stress=True)


def test_training_mode_keeps_the_graph_of_the_forces() -> None:
    model = tiny_model().train()
    prediction = model(graph_of(model, water()))
    loss = prediction.forces.square().sum() + prediction.energy.sum()
    loss.backward()
    weight = model.network.blocks[0].ga.so2_conv_1.fc_m0.weight
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("activation", ["gate", "s2"])
def test_forces_can_be_differentiated_by_given_positions(activation: str) -> None:
    model = tiny_model(activation=activation)
    graph = graph_of(model, oxygen_slab(), water())
    positions = graph.positions.clone().requires_grad_()
    forces = model(graph._replace(positions=positions)).forces
    (row,) = torch.autograd.grad(forces[12, 2], positions, retain_graph=True)
    move = torch.zeros_like(graph.positions)
    move[12, 2] = STEP
    ahead, behind = (
        model(graph._replace(positions=graph.positions + sign * move)).forces
        for sign in (1, -1)
    )
    # the column by differences is the row by differentiation: second derivatives
    torch.testing.assert_close(row, (ahead - behind) / (2 * STEP), atol=1e-6, rtol=1e-6)
    assert not ahead.requires_grad
    assert row[13:].abs().max() == 0  # the other structure


def test_results_do_not_depend_on_wrapping() -> None:
    model = tiny_model()
    atoms = oxygen_slab()
    wrapped = atoms.copy()
    wrapped.positions += atoms.cell.array[0] * 3
    wrapped.wrap()
    graphs: list[AtomGraph] = [
        build_graph(a, model.rule, dtype=model.dtype) for a in (atoms, wrapped)
    ]
    first, second = (model(graph).energy.item() for graph in graphs)
    assert first == pytest.approx(second, abs=1e-9)
