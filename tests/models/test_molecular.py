"""The student of one molecule: exact numbers, symmetries, what it refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from crack_md.calculators.crack import CrackCalculator
from crack_md.calculators.drivers import check_sum_over_atoms
from crack_md.calculators.engine import EagerEngine
from crack_md.calculators.molecules import MoleculeForces
from crack_md.calculators.replicas.langevin import Langevin
from crack_md.calculators.replicas.replicas import Replicas
from crack_md.data.torsions import bonded_pairs
from crack_md.errors import ConfigError, StructureError
from crack_md.graph import padded_graph
from crack_md.models.architectures import architecture_from, build_network
from crack_md.models.architectures.molecular import (
    Molecular,
    MolecularConfig,
    symmetric_permutations,
)
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from tests.factories import graph_of

REFERENCES = {1: -3.0, 6: -7.0, 8: -5.0}


def config_for(atoms: Atoms, **changes: int) -> MolecularConfig:
    bonds = bonded_pairs(atoms.numbers, atoms.positions[None])
    return MolecularConfig(
        hidden_channels=changes.get("hidden_channels", 8),
        num_layers=changes.get("num_layers", 2),
        atoms=" ".join(atoms.symbols),
        bonds=" ".join(f"{i}-{j}" for i, j in bonds),
    )


def model_of(atoms: Atoms) -> ForceField:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(config_for(atoms))
    assert isinstance(network, Molecular)
    rng = np.random.default_rng(0)
    frames = atoms.positions + 0.05 * rng.normal(size=(20, *atoms.positions.shape))
    network.standardise(frames)
    scale = EnergyScale(element_references=REFERENCES)
    elements = tuple(sorted(set(atoms.numbers.tolist())))
    return ForceField(network, scale, ModelMetadata("total", elements)).double().eval()


def ethanol(seed: int | None = 1) -> Atoms:
    atoms = molecule("CH3CH2OH")
    if seed is not None:
        atoms.rattle(0.05, seed=seed)
    return atoms


def evaluated(model: ForceField, *structures: Atoms) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        answer = model(graph_of(model, *structures))
    return answer.energy.detach().numpy(), answer.forces.detach().numpy()


@pytest.mark.parametrize(
    ("name", "count"),
    [("H2O", 2), ("CH3CH2OH", 12), ("CH4", 24), ("C2H6", 72), ("C6H6", 12)],
)
def test_permutations_of_known_molecules(name: str, count: int) -> None:
    atoms = molecule(name)
    config = config_for(atoms)
    group = symmetric_permutations(config.numbers, config.bonded)
    assert len(group) == count
    assert group[0].tolist() == list(range(len(atoms)))
    bonds = {frozenset(pair) for pair in config.bonded}
    for order in group.tolist():
        assert [config.numbers[i] for i in order] == list(config.numbers)
        assert {frozenset((order[i], order[j])) for i, j in config.bonded} == bonds


def test_too_many_permutations_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 120 permutations of equivalent"):
        build_network(config_for(molecule("C3H8")))  # 2 · 3! · 3! · 2


def test_energy_of_water_by_hand() -> None:
    """One channel: E = a/2 Σ silu(w·x + b) over both orders of the hydrogens."""
    atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.3, 1.0, 0]])
    network = build_network(config_for(atoms, hidden_channels=1, num_layers=1))
    assert isinstance(network, Molecular)
    first = network.hidden[0]
    assert isinstance(first, torch.nn.Linear)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
        first.bias.fill_(0.25)
        network.energy.weight.fill_(3.0)
        network.energy.bias.fill_(0.5)
        network.mean.copy_(torch.tensor([1.0, 1.0, 0.6]))
        network.spread.copy_(torch.tensor([0.1, 0.1, 0.2]))
    scale = EnergyScale(std=2.0, element_references={1: -1.0, 8: -4.0})
    model = ForceField(network, scale, ModelMetadata("total", (1, 8))).double()
    a, b, c = (1 / atoms.get_distance(i, j) for i, j in ((0, 1), (0, 2), (1, 2)))
    total = 0.0
    for x in ((a, b, c), (b, a, c)):
        z = (np.array(x) - [1.0, 1.0, 0.6]) / [0.1, 0.1, 0.2]
        z = z @ [0.5, -1.0, 2.0] + 0.25
        total += 3.0 * z / (1 + np.exp(-z)) + 0.5
    energies, _ = evaluated(model, atoms)
    assert energies[0] == pytest.approx(2.0 * total / 2 - 6.0, abs=1e-5)


def test_standardisation_is_that_of_equivalent_pairs() -> None:
    model = model_of(molecule("H2O"))
    network = model.network
    assert isinstance(network, Molecular)
    mean, spread = network.mean, network.spread
    assert mean[0] == mean[1] != mean[2]
    assert spread[0] == spread[1]


def test_equivalent_atoms_can_be_exchanged_and_no_others() -> None:
    atoms = ethanol()
    model = model_of(atoms)
    config = model.network.config
    assert isinstance(config, MolecularConfig)
    energies, forces = evaluated(model, atoms)
    for order in symmetric_permutations(config.numbers, config.bonded):
        moved = atoms.copy()
        moved.positions = atoms.positions[order]
        found, turned = evaluated(model, moved)
        assert found[0] == pytest.approx(energies[0], abs=1e-12)
        np.testing.assert_allclose(turned, forces[order], atol=1e-12)
    carbons = [i for i, number in enumerate(atoms.numbers) if number == 6]
    order = np.arange(len(atoms))
    order[carbons] = carbons[::-1]
    wrong = atoms.copy()
    wrong.positions = atoms.positions[order]
    assert abs(evaluated(model, wrong)[0][0] - energies[0]) > 1e-3


@pytest.mark.parametrize("mirrored", [False, True])
def test_rotations_and_reflections(mirrored: bool) -> None:
    atoms = ethanol()
    model = model_of(atoms)
    turn = Rotation.random(random_state=3).as_matrix()
    turn = turn @ np.diag([1, 1, -1]) if mirrored else turn
    turned = Atoms(atoms.numbers, atoms.positions @ turn + [3.0, -1.0, 8.0])
    energies, forces = evaluated(model, atoms)
    found = evaluated(model, turned)
    np.testing.assert_allclose(found[0], energies, atol=1e-11)
    np.testing.assert_allclose(found[1], forces @ turn, atol=1e-11)
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("pressed", [1.0, 0.6])
def test_forces_are_the_slope_of_the_energy(pressed: float) -> None:
    """Also where the repulsion is at work: ethanol at 0.6 of its size."""
    atoms, step = ethanol(), 1e-5
    atoms.positions *= pressed
    model = model_of(atoms)
    forces = evaluated(model, atoms)[1]
    for atom, axis in ((0, 0), (2, 2), (8, 1)):
        values = []
        for sign in (-1, 1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            values.append(evaluated(model, moved)[0][0])
        slope = (values[1] - values[0]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(-slope, rel=1e-6, abs=1e-7)


def test_second_derivatives_are_right() -> None:
    """Training on forces differentiates them once more."""
    atoms, step = ethanol(), 1e-5
    model = model_of(atoms).train()
    weight = model.network.energy.weight  # type: ignore[union-attr]
    assert isinstance(weight, torch.Tensor)
    graph = graph_of(model, atoms, ethanol(2))

    def loss() -> torch.Tensor:
        answer = model(graph)
        return answer.forces.square().sum() + answer.energy.sum()

    (slope,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        weight[0, 0] += step
        ahead = loss().item()
        weight[0, 0] -= 2 * step
        behind = loss().item()
    assert slope[0, 0].item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)


def test_repulsion_of_pressed_atoms_is_that_of_all_models() -> None:
    atoms = ethanol(None)
    atoms.positions *= 0.5
    model = model_of(atoms)
    graph = graph_of(model, atoms)
    pairs = model.network.pair_energy(graph).sum()  # by the table of neighbors
    assert float(pairs) > 10
    found = model.network(graph).pair_energy
    assert found is not None
    assert float(found.sum()) == pytest.approx(float(pairs), rel=1e-10)


def test_molecules_of_a_batch_do_not_see_each_other() -> None:
    one, other = ethanol(1), ethanol(2)
    model = model_of(one)
    energies, forces = evaluated(model, one, other)
    alone = evaluated(model, other)
    assert energies[1] == pytest.approx(alone[0][0], abs=1e-12)
    np.testing.assert_allclose(forces[9:], alone[1], atol=1e-12)
    features = model(graph_of(model, one, other)).node_features
    assert features.shape == (18, 1, 8)


@pytest.mark.slow
def test_compiled_code_takes_padded_graphs() -> None:
    atoms = ethanol()
    model = model_of(atoms)
    graph = graph_of(model, atoms, ethanol(2))
    wanted = model(graph)
    network = model.network
    network.compile(backend="eager", dynamic=False, fullgraph=True)
    padded = model(padded_graph(graph, 40, 12))
    torch.testing.assert_close(padded.energy[:2], wanted.energy)
    torch.testing.assert_close(padded.forces[:18], wanted.forces)


def test_six_motions_of_the_whole_have_no_frequency() -> None:
    atoms, step = ethanol(), 1e-4
    model = model_of(atoms)
    rows = []
    for atom in range(len(atoms)):
        for axis in range(3):
            sides = []
            for sign in (-1, 1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * step
                sides.append(evaluated(model, moved)[1].ravel())
            rows.append((sides[0] - sides[1]) / (2 * step))
    hessian = np.array(rows)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-6)
    whole = np.tile(np.eye(3), (9, 1))
    np.testing.assert_allclose(hessian @ whole, 0, atol=1e-6)


def test_a_file_gives_the_same_model_back(tmp_path: Path) -> None:
    atoms = ethanol()
    model = model_of(atoms).float()
    save_model(model, tmp_path / "student.pt")
    again = load_model(tmp_path / "student.pt")
    assert again.network.config == model.network.config
    assert evaluated(again, atoms)[0] == evaluated(model, atoms)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: molecule("CH3OH"), r"the structure is C O H H H H; take"),
        (lambda atoms: atoms[::-1], r"the structure is H H H"),
        (lambda atoms: atoms + Atoms("H"), r"the structure is C C O"),
        (lambda atoms: _swapped(atoms), r"bonded in the model's molecule"),
        (lambda atoms: _periodic(atoms), r"is periodic, and the model is one of a"),
    ],
)
def test_other_structures_are_one_line(change: object, message: str) -> None:
    calculator = CrackCalculator(model_of(ethanol()).float(), device="cpu")
    atoms = change(ethanol(None))  # type: ignore[operator]
    atoms.calc = calculator
    with pytest.raises(StructureError, match=message) as caught:
        atoms.get_potential_energy()
    assert "\n" not in str(caught.value)


def _swapped(atoms: Atoms) -> Atoms:
    """Return ethanol with a hydrogen of the methyl group and that of O exchanged."""
    bonds = bonded_pairs(atoms.numbers, atoms.positions[None]).tolist()
    oxygen = int(np.flatnonzero(atoms.numbers == 8)[0])
    hydroxyl = next(
        j if i == oxygen else i
        for i, j in bonds
        if oxygen in (i, j) and 1 in atoms.numbers[[i, j]]
    )
    other = next(i for i in range(len(atoms) - 1, 0, -1) if i != hydroxyl)
    atoms.positions[[hydroxyl, other]] = atoms.positions[[other, hydroxyl]]
    return atoms


def _periodic(atoms: Atoms) -> Atoms:
    atoms.set_cell([20.0] * 3)
    atoms.pbc = True
    return atoms


def test_a_graph_of_something_else_is_one_line() -> None:
    model = model_of(ethanol())
    with pytest.raises(StructureError, match="all that this model knows"):
        model(graph_of(model, molecule("CH3OH")))
    with pytest.raises(StructureError, match="is periodic"):
        graph_of(model, bulk("Cu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atoms": "O H Xq"}, "atoms has 'Xq', which is no element"),
        ({"bonds": "0-1 0-3"}, "not i-j with i < j < 3, the number of atoms"),
        ({"bonds": "0:1"}, "bonds is '0:1'; expected '0-1 0-2 ...'"),
        ({"num_layers": 0}, "num_layers is 0; expected 1 to 8"),
        pytest.param(
            {"forces": "direct"},
            "expected one of 'gradient'",
            marks=pytest.mark.wrong_types,
        ),
    ],
)
def test_choices_that_make_no_network(changes: dict[str, object], message: str) -> None:
    options = {"name": "molecular", "atoms": "O H H", "bonds": "0-1 0-2"}
    with pytest.raises(ValueError, match=re.escape(message)):
        architecture_from(options | changes)


def test_a_network_needs_a_molecule() -> None:
    with pytest.raises(ValueError, match="atoms is ''; expected a molecule"):
        build_network(architecture_from({"name": "molecular"}))


def test_replicas_have_the_forces_of_the_calculator() -> None:
    model = model_of(ethanol()).float()
    calculator = CrackCalculator(model, device="cpu")
    frames = [ethanol(seed) for seed in range(3)]
    positions = np.concatenate([atoms.positions for atoms in frames])
    fast = calculator.replica_forces(frames)
    assert isinstance(fast, MoleculeForces)
    energies, forces, errors = fast.forces(positions)
    wanted = calculator.calculate_many(frames, ("energy", "forces"))
    assert not errors
    for place, results in enumerate(wanted):
        assert not isinstance(results, Exception)
        assert energies[place] == pytest.approx(results["energy"], abs=1e-5)
        rows = slice(9 * place, 9 * place + 9)
        np.testing.assert_allclose(forces[rows], results["forces"], atol=1e-5)


def test_a_copy_that_has_come_apart_has_no_energy() -> None:
    frames = [ethanol(0), ethanol(1)]
    fast = MoleculeForces(EagerEngine(model_of(frames[0]).float()), frames)
    apart = frames[1].copy()
    apart.positions[-1] += 4.0
    positions = np.concatenate([frames[0].positions, apart.positions])
    energies, forces, errors = fast.forces(positions)
    assert list(errors) == [1]
    assert "it has come apart" in errors[1]
    assert np.isfinite(energies).tolist() == [True, False]
    assert np.isfinite(forces[:9]).all()


def test_replicas_of_a_molecule_move_as_they_do_alone() -> None:
    calculator = CrackCalculator(model_of(ethanol()), device="cpu", dtype="float64")
    frames, dynamics = [ethanol(seed) for seed in range(2)], Langevin(300.0)
    both = Replicas(frames, calculator, dynamics, seeds=[4, 5])
    alone = Replicas(frames[1:], calculator, dynamics, seeds=[5])
    both.run(5)
    alone.run(5)
    np.testing.assert_allclose(
        both.state.positions[9:], alone.state.positions, atol=1e-10
    )


def test_it_is_not_exported_as_a_function_of_edges() -> None:
    model = model_of(ethanol())
    edges = model.network.edges(graph_of(model, ethanol()))
    with pytest.raises(ConfigError, match="cannot be exported or compiled as one"):
        model.network.evaluate(edges)


def test_engines_that_look_for_neighbors_refuse_it() -> None:
    with pytest.raises(ConfigError, match="made for one molecule, whose pairs have no"):
        check_sum_over_atoms(model_of(ethanol()), "torch-sim")
