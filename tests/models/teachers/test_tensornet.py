"""TensorNet in plain PyTorch: published values, and the laws of any potential."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation

from crack_md.errors import CheckpointError, TeacherError
from crack_md.models.teachers import load_teacher
from crack_md.models.teachers.tensornet import TensorNetTeacher
from crack_md.models.teachers.tensornet_network import (
    TensorNet,
    TensorNetConfig,
    matrix_basis,
    smooth_bessel,
)

PYG, DGL = (f"{name}-MatPES-PBE-v2025.1-PES" for name in ("TensorNet", "TensorNetDGL"))


@pytest.fixture(scope="module", params=[PYG, DGL])
def published(request, references):
    folder = references / "data" / "matpes_tensornet" / request.param
    return TensorNetTeacher(folder, dtype=torch.float64)


def write_model(folder, *, messages="pyg", units=4, **changed):
    """Write a random model under the published names; return its folder."""
    torch.manual_seed(1)
    chosen = {
        "element_types": ["H", "O", "Pt"],
        "units": units,
        "nblocks": 2,
        "max_n": 3,
        "cutoff": 5.0,
        "is_intensive": False,
        "rbf_type": "SphericalBessel",
        "use_smooth": True,
        "activation_type": "swish",
        "equivariance_invariance_group": "O(3)",
        "include_state": False,
        "ntargets": 1,
    }
    described = {
        "@module": f"matgl.models._tensornet_{messages}",
        "init_args": chosen | changed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps({"kwargs": {"model": described}}))
    torch.save(random_weights(units), folder / "state.pt")
    return folder


def random_weights(units):
    wide = {"": (units, units)}
    shapes = {
        "tensor_embedding.emb": (3, units),
        "tensor_embedding.emb2": (units, 2 * units),
        "tensor_embedding.linears_scalar.0": (2 * units, units),
        "tensor_embedding.linears_scalar.1": (3 * units, 2 * units),
        "linear": (units, 3 * units),
    }
    for k in range(3):
        shapes[f"tensor_embedding.distance_proj{k + 1}"] = (units, 3)
    for part in ("layers", "gates"):
        for k in (0, 2, 4):
            shapes[f"final_layer.gated.{part}.{k}"] = wide[""]
        shapes[f"final_layer.gated.{part}.6"] = (1, units)
    for block in range(2):
        stem = f"layers.{block}.linears_scalar"
        shapes[f"{stem}.0"] = (units, 3)
        shapes[f"{stem}.1"] = (2 * units, units)
        shapes[f"{stem}.2"] = (3 * units, 2 * units)
    state = {}
    for name, shape in shapes.items():
        state[f"model.{name}.weight"] = torch.randn(shape) * shape[1] ** -0.5
        if name != "tensor_embedding.emb":
            state[f"model.{name}.bias"] = torch.randn(shape[0]) * 0.1
    for name, size in (("tensor_embedding.init_norm", units), ("out_norm", 3 * units)):
        state[f"model.{name}.weight"] = torch.ones(size)
        state[f"model.{name}.bias"] = torch.zeros(size)
    for stem, count in (
        ("tensor_embedding", 3),
        ("layers.0", 6),
        ("layers.1", 6),
    ):
        for k in range(count):
            state[f"model.{stem}.linears_tensor.{k}.weight"] = torch.randn(units, units)
    state["element_refs.property_offset"] = torch.tensor([-1.0, -2.0, -3.0])
    state["data_mean"], state["data_std"] = torch.tensor(0.0), torch.tensor(2.0)
    return state


@pytest.fixture(scope="module", params=["pyg", "dgl"])
def random_teacher(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensornet") / "model"
    write_model(folder, messages=request.param)
    return TensorNetTeacher(folder, dtype=torch.float64)


def covered_slab():
    slab = fcc111("Pt", (2, 2, 2), a=3.97, vacuum=5.0, periodic=True)
    slab += Atoms("OH", [[1.0, 1.2, 9.0], [1.2, 1.6, 9.9]])
    slab.rattle(0.1, seed=2)
    return slab


def test_molecules_have_their_published_energies(references):
    folder = references / "data" / "matpes_tensornet"
    teacher = load_teacher(f"tensornet:{folder / PYG}")

    water, methane = teacher.predict([molecule("H2O"), molecule("CH4")])

    assert water.energy == pytest.approx(-14.13, abs=0.01)
    assert methane.energy == pytest.approx(-23.75, abs=0.01)


def test_both_published_models_agree_on_molecules(published):
    # evaluated with the messages of the other code either is off by more than 3 eV
    water, methane = published.predict([molecule("H2O"), molecule("CH4")])

    assert water.energy == pytest.approx(-14.13, abs=0.25)
    assert methane.energy == pytest.approx(-23.75, abs=0.25)


def test_platinum_has_its_pbe_lattice_constant(published):
    constants = np.array([3.93, 3.97, 4.01])

    energies = [
        one.energy for one in published.predict([bulk("Pt", a=a) for a in constants])
    ]

    curvature, slope, _ = np.polyfit(constants, energies, 2)
    assert -slope / (2 * curvature) == pytest.approx(3.97, abs=0.03)


def test_basis_is_orthonormal_and_complete():
    basis = matrix_basis().flatten(1)

    torch.testing.assert_close(basis @ basis.T, torch.eye(9, dtype=torch.float64))


def test_radial_functions_vanish_smoothly_at_the_cutoff():
    distance = torch.linspace(0.5, 5.0, 4501, dtype=torch.float64)

    values = smooth_bessel(distance, 3, 5.0)

    step = distance[1] - distance[0]
    slope = (values[-1] - values[-2]) / step
    assert values[-1].abs().max() < 1e-12
    assert slope.abs().max() < 2e-3
    # n = 0, by hand, at 2.5 Å: sinc(1/2) = 2/π, sinc(1) = 0
    first = np.sqrt(2) * np.pi / 5**1.5 * 2 / np.sqrt(5) * 2 / np.pi
    middle = smooth_bessel(torch.tensor([2.5], dtype=torch.float64), 3, 5.0)
    assert float(middle[0, 0]) == pytest.approx(first, rel=1e-12)


def test_radial_functions_are_orthonormal():
    distance = torch.linspace(1e-6, 5.0, 20001, dtype=torch.float64)
    values = smooth_bessel(distance, 3, 5.0) * distance.unsqueeze(-1)

    overlap = torch.trapezoid(
        values.unsqueeze(-1) * values.unsqueeze(-2), distance, dim=0
    )

    # the two sums of sinc functions that make up each are orthonormal by design
    torch.testing.assert_close(
        overlap, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_forces_and_stress_are_gradients(random_teacher):
    slab = covered_slab()
    (here,) = random_teacher.predict([slab])
    shifts = []
    for sign in (1, -1):
        moved = slab.copy()
        moved.positions[8, 2] += sign * 1e-4
        shifts.append(moved)
    strains = []
    for sign in (1, -1):
        strained = slab.copy()
        strain = np.eye(3)
        strain[0, 1] = strain[1, 0] = sign * 0.5e-4
        strained.set_cell(slab.cell.array @ strain, scale_atoms=True)
        strains.append(strained)

    up, down = (one.energy for one in random_teacher.predict(shifts))
    plus, minus = (one.energy for one in random_teacher.predict(strains))

    assert here.forces[8, 2] == pytest.approx(-(up - down) / 2e-4, abs=1e-6)
    # dE of a symmetric shear ε_xy = ε_yx is 2 σ_xy V ε
    sigma = (plus - minus) / (2 * 1e-4) / slab.cell.volume
    assert here.stress[0, 1] == pytest.approx(sigma, abs=1e-8)


@pytest.mark.parametrize("reflect", [False, True])
def test_rotated_and_reflected_structures_are_alike(random_teacher, reflect):
    slab = covered_slab()
    turn = Rotation.random(random_state=3).as_matrix()
    turn = -turn if reflect else turn
    turned = slab.copy()
    turned.set_cell(slab.cell.array @ turn.T)
    turned.positions = slab.positions @ turn.T

    before, after = random_teacher.predict([slab, turned])

    assert after.energy == pytest.approx(before.energy, abs=1e-10)
    np.testing.assert_allclose(after.forces, before.forces @ turn.T, atol=1e-10)
    np.testing.assert_allclose(after.node_features, before.node_features, atol=1e-6)


def test_renumbered_atoms_are_alike(random_teacher):
    slab = covered_slab()
    order = np.random.default_rng(0).permutation(len(slab))

    before, after = random_teacher.predict([slab, slab[order]])

    assert after.energy == pytest.approx(before.energy, abs=1e-10)
    np.testing.assert_allclose(after.forces, before.forces[order], atol=1e-10)


def test_a_batch_is_as_good_as_one_by_one(random_teacher):
    structures = [covered_slab(), molecule("H2O"), Atoms("O", cell=[9] * 3, pbc=True)]

    together = random_teacher.predict(structures)
    alone = [random_teacher.predict([one])[0] for one in structures]

    for first, last in zip(together, alone, strict=True):
        assert first.energy == pytest.approx(last.energy, abs=1e-10)
        np.testing.assert_allclose(first.forces, last.forces, atol=1e-10)
        assert first.energy == pytest.approx(first.node_energy.sum(), abs=1e-10)


def test_messages_of_the_older_code_carry_the_atoms_own_tensor():
    torch.manual_seed(0)
    config = TensorNetConfig(n_elements=2, units=4, messages="receiver")
    network = TensorNet(config).double()
    vectors = torch.tensor([[1.5, 0, 0], [-1.5, 0, 0]], dtype=torch.float64)
    senders, receivers = torch.tensor([1, 0]), torch.tensor([0, 1])

    def first_atom(species):
        with torch.no_grad():
            energy, _ = network(vectors, senders, receivers, torch.tensor(species))
        return float(energy[0])

    own = first_atom([0, 0])
    # the neighbor's element enters the embedding of a pair alone: without that, nothing
    network.pair.weight.data[:, :4] = 0
    assert first_atom([0, 0]) == pytest.approx(first_atom([0, 1]), abs=1e-12)
    assert own != pytest.approx(first_atom([0, 0]), abs=1e-6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"is_intensive": True}, "is_intensive=True"),
        ({"rbf_type": "Gaussian"}, "rbf_type='Gaussian'"),
        ({"messages": "jax"}, "_tensornet_jax"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path, changed, said):
    folder = write_model(tmp_path / "model", **changed)

    with pytest.raises(TeacherError, match=said):
        TensorNetTeacher(folder)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    folder = write_model(tmp_path / "model")
    torch.save(random_weights(8), folder / "state.pt")

    with pytest.raises(CheckpointError, match="do not fit"):
        TensorNetTeacher(folder)


def test_a_folder_without_a_model_says_what_is_expected(tmp_path):
    with pytest.raises(TeacherError, match=r"model\.json"):
        load_teacher(f"tensornet:{tmp_path}")


def test_an_element_it_does_not_know_is_named(random_teacher):
    with pytest.raises(TeacherError, match="Cu"):
        random_teacher.predict([bulk("Cu")])
