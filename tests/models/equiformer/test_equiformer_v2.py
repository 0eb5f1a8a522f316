import dataclasses

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from scipy.spatial.transform import Rotation

import crack_md.models.equiformer.equiformer_v2 as equiformer_module
from crack_md.graph import edge_vectors
from crack_md.models.equiformer.attention import smooth_attention, strict_attention
from crack_md.models.equiformer.equiformer_v2 import (
    EquiformerV2,
    EquiformerV2Config,
    by_parts,
)
from crack_md.models.force_field import ForceField
from crack_md.models.layers import polynomial_envelope
from crack_md.models.so3 import edge_frames
from tests.factories import graph_of, oxygen_slab, tiny_model, water

GATED = {"activation": "gate", "ffn": "gate"}
FINE_GRID = {"activation": "s2", "ffn": "s2", "grid_resolution": 24}
VARIANTS = [
    {"neighbors": rule, "forces": forces, **functions}
    for rule in ("strict", "smooth")
    for forces in ("direct", "gradient")
    for functions in (GATED, FINE_GRID)
]


def energy_and_forces(model: ForceField, atoms: ase.Atoms) -> tuple[float, np.ndarray]:
    with torch.no_grad():
        prediction = model(graph_of(model, atoms))
    return prediction.energy.item(), prediction.forces.numpy()


def random_features(model: ForceField, n_atoms: int) -> torch.Tensor:
    """Return features of the right shape for the layers of a model."""
    config = model.network.config
    return torch.randn(
        n_atoms,
        (config.lmax + 1) ** 2,
        config.sphere_channels,
        dtype=model.dtype,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"num_layers": 20, "mmax": 3}, 153_602_690),
        ({"num_layers": 12, "mmax": 2}, 83_164_802),
        ({"num_layers": 8, "mmax": 2, "lmax": 4}, 31_058_690),
        ({"num_layers": 2, "mmax": 3, "delta": True}, 22_279_682),
    ],
)
def test_parameter_counts_of_the_public_models(
    changes: dict[str, int], count: int
) -> None:
    with torch.device("meta"):
        network = EquiformerV2(dataclasses.replace(EquiformerV2Config(), **changes))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_envelope_and_its_slopes_vanish_at_the_cutoff() -> None:
    r = torch.tensor([0.0, 2.5, 5.0], dtype=torch.float64, requires_grad=True)
    value = polynomial_envelope(r, 5.0, 5)
    # 1 − 21/32 + 35/64 − 15/128 at half the cutoff
    assert value.tolist() == pytest.approx([1.0, 0.7734375, 0.0])
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    assert abs(slope[2].item()) < 1e-12
    assert abs(curvature[2].item()) < 1e-12


def test_attention_weights_of_equal_logits() -> None:
    logits = torch.zeros(2, 3, 1)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    strict = strict_attention(logits, mask).squeeze(-1)
    assert strict.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    smooth = smooth_attention(logits, 0.5 * mask).squeeze(-1)
    expected = 0.25 / (1 + 1e-6)
    assert smooth[0].tolist() == pytest.approx([expected, expected, 0])
    assert smooth[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("activation", ["s2", "gate"])
@pytest.mark.parametrize("rule", ["strict", "smooth"])
def test_a_part_of_the_table_gives_its_atoms(rule: str, activation: str) -> None:
    # strict: no empty slot; smooth: rows of different lengths
    model = tiny_model(neighbors=rule, activation=activation, max_neighbors=5)
    network = model.network
    graph = graph_of(model, oxygen_slab())
    edges = network.edge_table(network.edges(graph))
    x = random_features(model, graph.n_atoms)
    layer = network.blocks[0].ga
    assert (edges.filled is None) == (rule == "strict")
    whole = layer(x, edges)
    for n_rows in (1, 3, 100):
        parts = by_parts(lambda part: layer(x, part), edges, n_rows)
        torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("activation", ["s2", "gate"])
def test_vectors_are_the_first_degree_of_all_outputs(activation: str) -> None:
    model = tiny_model(activation=activation, forces="direct")
    network = model.network
    edges = network.edge_table(network.edges(graph_of(model, oxygen_slab())))
    head = network.force_block
    x = random_features(model, edges.mask.shape[0])
    torch.testing.assert_close(head.vectors(x, edges), head(x, edges)[:, 1:4])


def test_without_gradients_the_work_is_cut_to_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(forces="direct")
    graph = graph_of(model, oxygen_slab())
    expected = model(graph)
    seen = []
    layer = model.network.blocks[0].ga
    layer.register_forward_hook(lambda _layer, given, _: seen.append(given[1].rows))
    monkeypatch.setattr(equiformer_module, "CHUNK_BYTES", {"cpu": 1})
    with torch.no_grad():
        found = model(graph)
    assert seen == [slice(atom, atom + 1) for atom in range(graph.n_atoms)]
    torch.testing.assert_close(found.forces, expected.forces.detach())
    torch.testing.assert_close(found.energy, expected.energy.detach())


@pytest.mark.parametrize("rule", ["strict", "smooth"])
def test_gradients_come_from_parts_evaluated_twice(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(neighbors=rule, forces="gradient")
    graph = graph_of(model, oxygen_slab())
    expected = model(graph, stress=True)
    seen = []
    layer = model.network.blocks[0].ga
    layer.register_forward_pre_hook(lambda _layer, given: seen.append(given[1].rows))
    monkeypatch.setattr(equiformer_module, "CHUNK_BYTES", {"cpu": 1})
    model(graph, stress=True)
    assert seen == [slice(0, graph.n_atoms)], "small structures are one piece"
    assert not model.network.is_large(graph.mask)
    seen.clear()
    monkeypatch.setattr(equiformer_module, "WHOLE_BYTES", 1)
    assert model.network.is_large(graph.mask)
    found = model(graph, stress=True)
    rows = [slice(atom, atom + 1) for atom in range(graph.n_atoms)]
    assert sorted(seen, key=lambda row: row.start) == sorted(
        rows * 2, key=lambda row: row.start
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_forces_that_are_trained_on_keep_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(forces="gradient").train()
    graph = graph_of(model, oxygen_slab())
    monkeypatch.setattr(equiformer_module, "CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(equiformer_module, "WHOLE_BYTES", 1)
    seen = []
    model.network.blocks[0].ga.register_forward_hook(lambda *_: seen.append(1))
    model(graph).forces.square().sum().backward()
    assert len(seen) == 1
    assert model.network.blocks[0].ga.proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("changes", VARIANTS)
def test_rotation_translation_and_renumbering(changes: dict[str, str]) -> None:
    model = tiny_model(**changes)
    atoms = oxygen_slab()
    energy, forces = energy_and_forces(model, atoms)
    rotation = Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    order = np.random.default_rng(2).permutation(len(atoms))
    moved = atoms[order]
    moved.set_cell(atoms.cell.array @ rotation.T)
    moved.positions = (atoms.positions[order] + [0.3, 20.0, -7.0]) @ rotation.T
    energy_moved, forces_moved = energy_and_forces(model, moved)
    assert energy_moved == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(forces_moved, forces[order] @ rotation.T, atol=1e-6)
    assert np.abs(forces).max() > 1e-3


@pytest.mark.parametrize("changes", VARIANTS)
def test_supercell_and_batch(changes: dict[str, str]) -> None:
    model = tiny_model(**changes)
    atoms = oxygen_slab()
    energy, forces = energy_and_forces(model, atoms)
    double, forces_double = energy_and_forces(model, atoms.repeat((2, 1, 1)))
    assert double == pytest.approx(2 * energy, abs=1e-8)
    np.testing.assert_allclose(forces_double, np.tile(forces, (2, 1)), atol=1e-8)
    others = [water(), atoms, bulk("Cu")]
    with torch.no_grad():
        batch = model(graph_of(model, *others))
    assert batch.energy[1].item() == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(batch.forces[3:-1].numpy(), forces, atol=1e-9)


def test_smooth_rule_is_extensive_for_ideal_cells() -> None:
    model = tiny_model(neighbors="smooth")
    slab = fcc111("Pt", (1, 1, 3), a=3.97, vacuum=6.0)
    one, _ = energy_and_forces(model, slab)
    nine, _ = energy_and_forces(model, slab.repeat((3, 3, 1)))
    assert nine == pytest.approx(9 * one, abs=1e-8)


def test_padding_of_the_table_changes_nothing() -> None:
    """Compiled graphs keep the padding that eager ones leave out."""
    model = tiny_model(forces="direct")
    graph = graph_of(model, oxygen_slab(), water())
    with torch.no_grad():
        compact = model.network(graph, compact=True)
        padded = model.network(graph, compact=False)
    assert not graph.mask.all()
    torch.testing.assert_close(padded.node_energy, compact.node_energy)
    torch.testing.assert_close(padded.forces, compact.forces)


@pytest.mark.parametrize("forces", ["direct", "gradient"])
@pytest.mark.parametrize("rule", ["strict", "smooth"])
def test_one_atom_and_no_edge(rule: str, forces: str) -> None:
    model = tiny_model(neighbors=rule, forces=forces)
    atom = ase.Atoms("O")
    energy, force = energy_and_forces(model, atom)
    assert np.isfinite(energy)
    np.testing.assert_array_equal(force, np.zeros((1, 3)))
    far = ase.Atoms("O2", [[0, 0, 0], [0, 0, 50]])
    assert energy_and_forces(model, far)[0] == pytest.approx(2 * energy)
    energy, force = energy_and_forces(model, bulk("Pt"))
    assert np.isfinite(energy)
    if rule == "smooth":  # the strict rule cuts through a shell of equal neighbors
        np.testing.assert_allclose(force, np.zeros((1, 3)), atol=1e-8)


def test_dimer_pulled_apart_ends_as_two_atoms_without_a_jump() -> None:
    model = tiny_model(neighbors="smooth")
    cutoff = model.network.config.cutoff
    direction = np.array([0.6, 0.48, 0.64])
    distances = np.linspace(cutoff - 0.3, cutoff + 0.05, 71)
    energies, forces = [], []
    for distance in distances:
        atoms = ase.Atoms("PtO", [[0, 0, 0], distance * direction])
        energy, force = energy_and_forces(model, atoms)
        energies.append(energy)
        forces.append(force[1] @ direction)
    alone = sum(energy_and_forces(model, ase.Atoms(s))[0] for s in ("Pt", "O"))
    assert energies[-1] == pytest.approx(alone, abs=1e-12)
    assert forces[-1] == 0
    slopes = np.gradient(energies, distances)
    np.testing.assert_allclose(forces[2:-2], -slopes[2:-2], atol=2e-4)
    steps = np.abs(np.diff(forces))
    assert steps.max() < 0.2 * np.abs(forces).max()


@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_atom_crossing_the_cutoff_moves_energy_and_forces_smoothly(
    forces: str,
) -> None:
    model = tiny_model(neighbors="smooth", forces=forces)
    cutoff = model.network.config.cutoff
    base = ase.Atoms("Pt3O", [[0, 0, 0], [2.5, 0, 0], [0, 2.6, 0], [0, 0, cutoff]])
    values = []
    for shift in (-1e-4, 1e-4):
        atoms = base.copy()
        atoms.positions[3, 2] += shift
        values.append(energy_and_forces(model, atoms))
    assert values[0][0] == pytest.approx(values[1][0], abs=1e-9)
    np.testing.assert_allclose(values[0][1], values[1][1], atol=1e-6)


@pytest.mark.parametrize("functions", [GATED, FINE_GRID])
def test_energy_does_not_feel_the_seam_of_the_frames(
    functions: dict[str, str],
) -> None:
    model = tiny_model(**functions)
    graph = graph_of(model, oxygen_slab())
    roll = torch.from_numpy(Rotation.from_rotvec([0, 1.1, 0]).as_matrix())
    safe = torch.where(graph.mask.unsqueeze(-1), edge_vectors(graph), roll[1])
    frames = edge_frames(safe)
    with torch.no_grad():
        first = model.network(graph, frames=frames).node_energy
        rolled = model.network(graph, frames=roll @ frames).node_energy
    assert (first - rolled).abs().max() < 1e-6
