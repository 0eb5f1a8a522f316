"""What every architecture promises, whatever is inside."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.data import covalent_radii
from scipy.spatial.transform import Rotation

from crack_md.errors import CheckpointError, ConfigError
from crack_md.graph import padded_graph
from crack_md.models.architectures import architecture_from, build_network
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import (
    EnergyScale,
    ForceField,
    ModelMetadata,
    with_products_in,
)
from crack_md.models.harmonics import DensityProducts, unroll
from crack_md.models.network import edges_from_list
from tests.factories import graph_of, oxygen_slab, tiny_config, tiny_model, water

ACE = {"name": "ace", "cutoff": 4.0, "channels": 8, "hidden_channels": 16}
EQUIFORMER = dataclasses.asdict(tiny_config(short_range="zbl", reflections=True))
OPTIONS = {
    "ace": ACE,
    "ace, lmax 3": ACE | {"lmax": 3},
    "painn": {"name": "painn", "cutoff": 4.0, "channels": 16},
    "equiformer_v2": EQUIFORMER,
}
EXACT_ATOMS = OPTIONS.keys() - {"equiformer_v2"}
"""Where an isolated atom has its reference: EquiformerV2 learns another constant."""
REFERENCES = {1: -1.0, 8: -3.0, 29: -3.5, 46: -5.0, 78: -6.0}
METALS = ase.Atoms("AgAuCoCuFeIrNiPdPtRhRuZnGaInSnPbBiScYTiOsRe").get_chemical_symbols()


def model_of(name: str, *, seed: int = 0, std: float = 1.0) -> ForceField:
    """Return a model whose weights are not where they start."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(architecture_from(OPTIONS[name]))
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(1 + 0.3 * torch.randn_like(weight))
    scale = EnergyScale(std=std, element_references=REFERENCES)
    model = ForceField(network, scale, ModelMetadata("total", tuple(range(1, 84))))
    return model.double().eval()


def evaluated(
    model: ForceField, atoms: ase.Atoms
) -> tuple[float, np.ndarray, np.ndarray]:
    with torch.no_grad():
        answer = model(graph_of(model, atoms))
    features = answer.node_features[:, 0].numpy()
    return answer.energy.item(), answer.forces.numpy(), features


def mixed_pbc() -> ase.Atoms:
    slab = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    slab.symbols[3] = "Pd"
    slab.pbc = (True, True, False)
    slab.rattle(0.1, seed=2)
    return slab


def small_cell() -> ase.Atoms:
    """Return a cell with many images of the same atoms."""
    atoms = bulk("Pt") * (2, 1, 1)
    atoms.symbols[0] = "Cu"
    atoms.rattle(0.1, seed=1)
    return atoms


STRUCTURES = [oxygen_slab, water, mixed_pbc, small_cell]


@pytest.fixture(params=list(OPTIONS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("structure", STRUCTURES)
def test_forces_are_the_slope_of_the_energy(
    name: str, structure: Callable[[], ase.Atoms]
) -> None:
    model, atoms, step = model_of(name), structure(), 2e-5
    forces = evaluated(model, atoms)[1]
    assert np.abs(forces).max() > 1e-2
    for atom, axis in ((0, 0), (0, 2), (len(atoms) - 1, 1)):
        values = []
        for sign in (-1, 1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            values.append(evaluated(model, moved)[0])
        slope = (values[1] - values[0]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(-slope, abs=2e-6, rel=1e-6)


@pytest.mark.parametrize("structure", [oxygen_slab, small_cell])
def test_stress_is_the_slope_of_the_energy_with_strain(
    name: str, structure: Callable[[], ase.Atoms]
) -> None:
    model, atoms, step = model_of(name), structure(), 2e-5
    stress = model(graph_of(model, atoms), stress=True).stress[0].numpy()
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        values = []
        for sign in (-1, 1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            values.append(evaluated(model, moved)[0])
        slope = (values[1] - values[0]) / (2 * step) / atoms.cell.volume
        assert stress[i, j] == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_rotated_and_mirrored_structures_are_the_same(
    name: str, structure: Callable[[], ase.Atoms], mirrored: bool
) -> None:
    model, atoms = model_of(name), structure()
    turn = Rotation.random(random_state=3).as_matrix()
    turn = turn @ np.diag([1, 1, -1]) if mirrored else turn
    turned = ase.Atoms(
        atoms.numbers, atoms.positions @ turn, cell=atoms.cell @ turn, pbc=atoms.pbc
    )
    energy, forces, features = evaluated(model, atoms)
    found = evaluated(model, turned)
    assert found[0] == pytest.approx(energy, abs=1e-10)
    np.testing.assert_allclose(found[1], forces @ turn, atol=1e-10)
    np.testing.assert_allclose(found[2], features, atol=1e-10)


def test_numbering_place_and_company_do_not_matter(name: str) -> None:
    model, atoms = model_of(name), oxygen_slab()
    energy, forces, features = evaluated(model, atoms)
    order = np.random.default_rng(0).permutation(len(atoms))
    moved = atoms[order]
    moved.positions += [3.0, -2.0, 1.0]
    found = evaluated(model, moved)
    assert found[0] == pytest.approx(energy, abs=1e-10)
    np.testing.assert_allclose(found[1], forces[order], atol=1e-10)
    np.testing.assert_allclose(found[2], features[order], atol=1e-10)
    with torch.no_grad():
        batch = model(graph_of(model, water(), atoms, ase.Atoms("O")))
    assert batch.energy[1].item() == pytest.approx(energy, abs=1e-10)
    np.testing.assert_allclose(batch.forces[3:-1].numpy(), forces, atol=1e-10)


@pytest.mark.parametrize("structure", [oxygen_slab, small_cell])
def test_energies_are_extensive(name: str, structure: Callable[[], ase.Atoms]) -> None:
    model, atoms = model_of(name), structure()
    energy, forces, _ = evaluated(model, atoms)
    doubled = evaluated(model, atoms * (2, 1, 2))
    assert doubled[0] == pytest.approx(4 * energy, abs=1e-9)
    np.testing.assert_allclose(doubled[1], np.tile(forces, (4, 1)), atol=1e-10)


@pytest.mark.parametrize("name", sorted(EXACT_ATOMS))
def test_isolated_atoms_have_their_reference(name: str) -> None:
    model = model_of(name)
    for atoms in (ase.Atoms("O"), ase.Atoms("Pt", cell=[30] * 3, pbc=True)):
        energy, forces, features = evaluated(model, atoms)
        assert energy == REFERENCES[atoms.numbers[0]]
        assert (forces == 0).all()
        assert np.isfinite(features).all()
    far = ase.Atoms("PtO", [[0, 0, 0], [0, 0, 9.0]])
    assert evaluated(model, far)[0] == -9.0


def test_atoms_leave_the_cutoff_smoothly(name: str) -> None:
    model = model_of(name)
    cutoff = model.network.config.cutoff
    gaps = 10.0 ** -np.arange(1, 6)
    energies, forces = [], []
    for gap in gaps:
        far = cutoff - gap
        pair = ase.Atoms("PtO", [[0, 0, 0], [0, 0.6 * far, 0.8 * far]])
        pair += ase.Atoms("Cu", [[2.0, 0.5, 0.0]])
        alone = pair[[0, 2]]
        energy, force, _ = evaluated(model, pair)
        apart = evaluated(model, alone)[0] + evaluated(model, ase.Atoms("O"))[0]
        energies.append(energy - apart)
        forces.append(np.abs(force[1]).max())
    # the envelope falls with the third power of the gap, its slope with the second
    assert abs(energies[-1]) < 1e-11
    assert forces[-1] < 1e-7
    assert forces[-1] < 1e-3 * max(forces) + 1e-9
    beyond = pair.copy()
    beyond.positions[1] *= (cutoff + 1e-6) / cutoff
    assert evaluated(model, beyond)[1][1] == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("light", ["H", "O", None])
def test_energy_rises_to_contact(name: str, light: str | None) -> None:
    """H and O above a surface atom, and dimers, with networks that know nothing.

    From 0.68 of the covalent radii down; what lies above is for data to say.
    """
    for number, metal in enumerate(METALS):
        model = model_of(name, seed=number)
        scan = np.linspace(0.3, 2.6, 116)
        places = [
            ase.Atoms([metal, light or metal], [[0, 0, 0], [0, 0.1 * z, z]])
            for z in scan
        ]
        if light:
            slab = fcc111(metal, (1, 1, 2), a=4.0)
            slab.pbc = (True, True, False)
            top = slab.positions[-1]
            places = [
                slab + ase.Atoms(light, [top + np.array([0, 0, z])]) for z in scan
            ]
        with torch.no_grad():
            energies = model(graph_of(model, *places)).energy.numpy()
        radii = covalent_radii[ase.Atoms([metal, light or metal]).numbers].sum()
        near = scan < 0.68 * radii
        assert (np.diff(energies[near]) < 0).all(), metal
        assert energies[0] - energies[near][-1] > 50


def test_crowded_atoms_repel(name: str) -> None:
    """A metal compressed to neighbors at 0.8 Å is worth hundreds of eV an atom."""
    model = model_of(name)
    crowded = bulk("Pt", a=0.8 * 2**0.5)
    assert evaluated(model, crowded)[0] > 500


def test_edges_alone_give_the_energies_of_atoms(name: str) -> None:
    model = model_of(name, std=2.0)
    graph = graph_of(model, oxygen_slab(), water())
    edges = model.network.edges(graph, compact=True)._replace(compact=False)
    with torch.no_grad():
        found, expected = model.atomic_energies(edges), model(graph).node_energy
    torch.testing.assert_close(found, expected)


def test_atoms_feel_each_other_over_so_many_edges(name: str) -> None:
    """Along a chain whose links reach nearest neighbors alone."""
    model = model_of(name)
    chain = ase.Atoms("Pt8", [[0.3 * (k % 2), 0, 2.8 * k] for k in range(8)])
    graph = graph_of(model, chain)
    positions = graph.positions.clone().requires_grad_()
    edges = model.network.edges(graph._replace(positions=positions))
    (slopes,) = torch.autograd.grad(model.atomic_energies(edges)[0], positions)
    felt = slopes.abs().amax(dim=1) > 0
    hops = model.network.config.hops
    assert felt.tolist() == [place <= hops for place in range(8)]


def test_padding_and_compact_edges_change_nothing(name: str) -> None:
    model = model_of(name)
    graph = graph_of(model, oxygen_slab(), water())
    with torch.no_grad():
        compact = model.network(graph, compact=True)
        padded = model.network(graph, compact=False)
    torch.testing.assert_close(compact.node_energy, padded.node_energy)
    torch.testing.assert_close(compact.node_features, padded.node_features)
    answer = model(padded_graph(graph, 24, graph.mask.shape[1] + 3))
    torch.testing.assert_close(answer.energy[:2], model(graph).energy)


def test_room_for_a_fixed_number_of_edges_changes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(name)
    graph = graph_of(model, oxygen_slab(), water())
    n_edges = int(graph.mask.sum())
    expected = model(graph)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for room in (n_edges, n_edges + 3):
        given = graph._replace(most_edges=room)
        edges = model.network.edges(given)
        assert len(edges.senders) == len(edges.vectors) == room
        assert int(edges.real.sum()) == n_edges
        assert (edges.receivers.diff() >= 0).all()
        found = model(given)
        torch.testing.assert_close(found.energy, expected.energy)
        torch.testing.assert_close(found.forces, expected.forces)


def test_second_derivatives_are_right(name: str) -> None:
    """Training on forces differentiates them once more."""
    model, step = model_of(name).train(), 1e-5
    weight = next(w for w in model.network.parameters() if w.dim() > 1)
    graph = graph_of(model, oxygen_slab(), water())

    def loss() -> torch.Tensor:
        answer = model(graph)
        return answer.forces.square().sum() + answer.energy.sum()

    (slope,) = torch.autograd.grad(loss(), weight)
    place = np.unravel_index(int(slope.abs().argmax()), slope.shape)
    with torch.no_grad():
        weight[place] += step
        ahead = loss().item()
        weight[place] -= 2 * step
        behind = loss().item()
    assert slope[place].item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)


def test_a_file_gives_the_same_model_back(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    save_model(model, tmp_path / "student.pt")
    content = torch.load(tmp_path / "student.pt", weights_only=True)
    assert content["architecture"]["name"] == OPTIONS[name]["name"]
    again = load_model(tmp_path / "student.pt", dtype=torch.float64)
    assert again.network.config == model.network.config
    assert evaluated(again, oxygen_slab())[0] == evaluated(model, oxygen_slab())[0]


def test_constants_stay_exact_through_float32(name: str) -> None:
    model = model_of(name)
    for weight in model.parameters():
        weight.data = weight.data.float().double()
    energy = evaluated(model, oxygen_slab())[0]
    assert evaluated(model.float().double(), oxygen_slab())[0] == energy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "gnn"}, "name is 'gnn'; expected one of equiformer_v2, ace"),
        ({"cutoff": 1e9}, "cutoff is 1000000000.0; expected 0.5 to 50"),
        ({"cutoff": float("nan")}, "cutoff is nan"),
        ({"cutoff": "far"}, "cutoff is 'far'; expected a value of kind float"),
        ({"short_range": "lj"}, "short_range is 'lj'; expected one of 'none', 'zbl'"),
        ({"num_elements": 1.5}, "num_elements is 1.5; expected a value of kind int"),
        ({"forces": "direct"}, "forces: gradient|expected one of 'gradient'"),
    ],
)
@pytest.mark.wrong_types
def test_values_that_make_no_network_are_refused(
    name: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        architecture_from(OPTIONS[name] | changes)


def test_reflections_take_half_of_the_maps_of_orders() -> None:
    def n_weights(**changes: bool) -> int:
        network = build_network(tiny_config(**changes))
        return sum(
            weight.numel()
            for name, weight in network.named_parameters()
            if "so2_m_conv" in name
        )

    assert 2 * n_weights(reflections=True) == n_weights()


def test_models_without_the_option_tell_mirror_images_apart() -> None:
    atoms, mirrored = oxygen_slab(), oxygen_slab()
    mirrored.set_cell(atoms.cell * [1, 1, -1])
    mirrored.positions[:, 2] *= -1
    model = tiny_model()
    with torch.no_grad():
        one, other = model(graph_of(model, atoms, mirrored)).energy
    assert abs(one - other) > 1e-6


def test_grids_are_not_exact_under_reflections() -> None:
    with pytest.raises(ValueError, match="reflections: true is exact with activation"):
        tiny_config(reflections=True, activation="s2")


@pytest.mark.wrong_types
def test_channels_have_to_be_there() -> None:
    for options in ({**ACE, "channels": 0}, {**ACE, "lmax": 1000}):
        with pytest.raises(ValueError, match="expected 1 to"):
            architecture_from(options)
    with pytest.raises(ValueError, match="num_layers is 1000000; expected 1 to 100"):
        tiny_config(num_layers=1_000_000)
    with pytest.raises(ValueError, match="neighbors is 'x'; expected one of 'strict'"):
        tiny_config(neighbors="x")


def test_unknown_options_in_a_file_are_one_line(name: str, tmp_path: Path) -> None:
    save_model(model_of(name), tmp_path / "student.pt")
    content = torch.load(tmp_path / "student.pt", weights_only=True)
    for change in ({"depth": 3}, {"name": "gnn"}, {"num_elements": 10**9}):
        bad = {**content, "architecture": content["architecture"] | change}
        torch.save(bad, tmp_path / "bad.pt")
        with pytest.raises(CheckpointError, match="wrong 'architecture'") as caught:
            load_model(tmp_path / "bad.pt")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ace", "painn"])
def test_small_products_are_not_lowered(name: str) -> None:
    with pytest.raises(ConfigError, match="too small to gain from bfloat16"):
        with_products_in(model_of(name), torch.bfloat16)


def test_a_list_of_edges_in_any_order_gives_what_the_graph_gives(name: str) -> None:
    model = model_of(name, std=2.0)
    crowded = oxygen_slab()
    crowded.positions[-1, 2] -= 0.5  # the repulsion counts, too
    graph = graph_of(model, crowded, water(), ase.Atoms("Pt"))
    with torch.no_grad():
        expected = model(graph, stress=True)
    edges = model.network.edges(graph)
    order = torch.randperm(len(edges.senders), generator=torch.manual_seed(0))
    listed = edges_from_list(
        *(one[order] for one in (edges.vectors, edges.senders, edges.receivers)),
        edges.numbers,
    )
    found = model.on_edges(listed)
    torch.testing.assert_close(found.node_energy, expected.node_energy)
    torch.testing.assert_close(found.forces, expected.forces)
    torch.testing.assert_close(found.node_features, expected.node_features)
    of_slab = listed.receivers < len(crowded)
    virial = -(listed.vectors[of_slab].T @ found.slopes[of_slab])
    stress = expected.stress[0]
    torch.testing.assert_close(-virial / crowded.cell.volume, stress)


@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_strict_models_take_a_list_of_edges(forces: str) -> None:
    model = tiny_model(neighbors="strict", forces=forces)
    graph = graph_of(model, oxygen_slab(), water())
    edges = model.network.edges(graph)
    listed = edges_from_list(
        edges.vectors, edges.senders, edges.receivers, edges.numbers
    )
    with torch.no_grad():
        expected = model(graph)
    found = model.on_edges(listed)
    torch.testing.assert_close(found.node_energy, expected.node_energy)
    torch.testing.assert_close(found.forces, expected.forces)
    assert (found.slopes == 0).all() == (forces == "direct")


@pytest.mark.parametrize("lmax", [1, 2, 3])
def test_products_that_are_written_out_are_the_same(lmax: int) -> None:
    products = DensityProducts(lmax, 3).double()
    random = torch.Generator().manual_seed(lmax)
    density = torch.randn((lmax + 1) ** 2, 4, 3, generator=random).double()
    expected = products(density)
    unroll(products)
    torch.testing.assert_close(products(density), expected)
