"""torch-sim's own checks, and its dynamics and relaxations against ASE's."""

from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import add_adsorbate, bulk, fcc111
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from crack_md import CrackCalculator
from crack_md.errors import ConfigError, StructureError
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import ModelMetadata
from crack_md.models.registry import model_names
from tests.factories import ELEMENTS, oxygen_slab, tiny_model
from tests.models.test_architectures import model_of

pytest.importorskip(
    "torch_sim", reason="needs torch-sim on Python 3.12 or newer (make engines)"
)

import torch_sim as ts
from torch_sim.autobatching import InFlightAutoBatcher, calculate_memory_scalers
from torch_sim.integrators import nve_init, nve_step
from torch_sim.models.interface import validate_model_outputs
from torch_sim.testing import (
    CONSISTENCY_SIMSTATES,
    SIMSTATE_GENERATORS,
    assert_model_calculator_consistency,
)

from crack_md.calculators.torchsim import CrackModel

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # ASE with NumPy 2.5
    pytest.mark.filterwarnings("ignore:.*Å apart"),  # of states that are no structures
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["ace", "equiformer_v2"])
def student(request: pytest.FixtureRequest) -> CrackCalculator:
    """Return a student of all elements up to Bi."""
    return CrackCalculator(model_of(request.param, std=0.3), dtype="float64")


@pytest.fixture(scope="module")
def model(student: CrackCalculator) -> CrackModel:
    return CrackModel(student)


def test_torchsim_accepts_the_outputs(model: CrackModel) -> None:
    validate_model_outputs(model, CPU, torch.float64)


@pytest.mark.parametrize("name", CONSISTENCY_SIMSTATES)
def test_states_of_torchsim_are_as_in_ase(
    model: CrackModel, student: CrackCalculator, name: str
) -> None:
    state = SIMSTATE_GENERATORS[name](CPU, torch.float64)
    if torch.linalg.det(state.cell).abs().min() > 0:
        assert_model_calculator_consistency(model, student, state, *[1e-9] * 6)
        return
    # molecules without a cell: ASE refuses their stress
    (atoms,) = ts.io.state_to_atoms(state)
    atoms.calc = student
    results = model(state)
    assert results["energy"].item() == pytest.approx(
        atoms.get_potential_energy(), abs=1e-9
    )
    np.testing.assert_allclose(results["forces"], atoms.get_forces(), atol=1e-9)
    assert (results["stress"] == 0).all()


def slabs() -> list[ase.Atoms]:
    """O on Pt3Ni(111) slabs of two sizes, rattled, with velocities of 300 K."""
    structures = []
    for seed, size in enumerate([(2, 2, 2), (2, 2, 3), (2, 2, 2)]):
        atoms = fcc111("Pt", size, a=3.9, vacuum=5.0, periodic=True)
        atoms.numbers[[0, 5]] = 28
        add_adsorbate(atoms, "O", 1.3, "fcc")
        atoms.rattle(0.05, seed=seed)
        atoms.set_velocities(
            np.random.default_rng(seed).normal(0, 0.012, (len(atoms), 3))
        )
        structures.append(atoms)
    return structures


@pytest.fixture(scope="module")
def packaged() -> CrackCalculator:
    if not model_names():
        pytest.skip("this tree has no packaged student")
    return CrackCalculator(dtype="float64")


def test_nve_of_a_batch_follows_ase(packaged: CrackCalculator) -> None:
    model, structures = CrackModel(packaged), slabs()
    state = nve_init(
        ts.initialize_state(structures, model.device, model.dtype), model, kT=0.0
    )
    momenta = np.concatenate([atoms.get_momenta() for atoms in structures])
    state.momenta = torch.from_numpy(momenta)
    for _ in range(20):
        state = nve_step(state, model, dt=torch.tensor(units.fs))
    ends, energies = ts.io.state_to_atoms(state), state.energy.tolist()
    for atoms, end, energy in zip(structures, ends, energies, strict=True):
        atoms.calc = packaged
        begin = atoms.get_total_energy()
        VelocityVerlet(atoms, timestep=units.fs).run(20)
        np.testing.assert_allclose(end.positions, atoms.positions, atol=1e-8)
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        assert energy + atoms.get_kinetic_energy() == pytest.approx(begin, abs=2e-3)


def test_a_thermostat_warms_cold_structures(packaged: CrackCalculator) -> None:
    state = ts.integrate(
        slabs()[:2],
        CrackModel(packaged),
        integrator=ts.Integrator.nvt_langevin,
        n_steps=40,
        temperature=500.0,
        timestep=0.002,
        gamma=20.0,
    )
    temperature = ts.calc_temperature(
        masses=state.masses, momenta=state.momenta, system_idx=state.system_idx
    )
    assert ((temperature > 200) & (temperature < 900)).all()
    for atoms, energy in zip(
        ts.io.state_to_atoms(state), state.energy.tolist(), strict=True
    ):
        atoms.calc = packaged
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


def test_fire_in_small_batches_ends_where_ase_does(packaged: CrackCalculator) -> None:
    model, structures = CrackModel(packaged), slabs()
    assert model.memory_scales_with == "n_edges"
    state = ts.initialize_state(structures, model.device, model.dtype)
    edges = calculate_memory_scalers(state, "n_edges")
    batcher = InFlightAutoBatcher(
        model,
        memory_scales_with="n_edges",
        max_memory_scaler=1.3 * max(edges),  # one or two at a time
    )
    state = ts.optimize(
        state,
        model,
        optimizer=ts.Optimizer.fire,
        convergence_fn=ts.generate_force_convergence_fn(0.01),
        max_steps=1000,
        autobatcher=batcher,
    )
    for atoms, energy in zip(structures, state.energy.tolist(), strict=True):
        atoms.calc = packaged
        assert FIRE(atoms, logfile=None).run(fmax=0.01, steps=1000)
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=2e-3)


def test_wrapped_and_far_atoms_are_the_same(model: CrackModel) -> None:
    atoms = oxygen_slab()
    state = ts.initialize_state(atoms, model.device, model.dtype)
    far = state.clone()
    far.positions[3] += 4 * state.row_vector_cell[0, 0]
    one, other = model(state), model(far)
    for name in ("energy", "forces", "stress"):
        torch.testing.assert_close(one[name], other[name], atol=1e-9, rtol=1e-9)


def test_slabs_that_end_across_the_surface_are_as_in_ase(
    model: CrackModel, student: CrackCalculator
) -> None:
    atoms = oxygen_slab()
    atoms.pbc = (True, True, False)
    atoms.positions[:, 2] += 20.0  # outside of the cell
    state = ts.initialize_state(atoms, model.device, model.dtype)
    assert_model_calculator_consistency(model, student, state, *[1e-9] * 6)


def test_single_precision_keeps_states_in_float64() -> None:
    calculator = CrackCalculator(model_of("ace"))
    model = CrackModel(calculator)
    assert model.dtype == torch.float64
    state = ts.initialize_state(oxygen_slab(), model.device, model.dtype)
    assert_model_calculator_consistency(model, calculator, state, *[1e-4] * 6)
    assert {one.dtype for one in model(state).values()} == {torch.float64}


def test_unknown_elements_are_refused(packaged: CrackCalculator) -> None:
    model = CrackModel(packaged)
    state = ts.initialize_state(bulk("Si"), model.device, model.dtype)
    with pytest.raises(StructureError, match="does not know Si"):
        model(state)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"neighbors": "strict"}, "keeps the 8 nearest neighbors"),
        ({"forces": "direct"}, "forces are direct"),
        ({"metadata": ModelMetadata("adsorption", ELEMENTS)}, "adsorption energies"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        CrackModel(CrackCalculator(tiny_model(**changes)))


def test_committees_are_refused() -> None:
    with pytest.raises(ConfigError, match="a committee of 2 models"):
        CrackModel(CrackCalculator([tiny_model(), tiny_model(seed=1)]))


@pytest.mark.filterwarnings("ignore")  # of metatomic about TorchScript and its inputs
def test_exported_files_run_in_the_model_of_metatomic(tmp_path: Path) -> None:
    pytest.importorskip("metatomic_torchsim", reason="needs metatomic-torchsim")
    from metatomic_torchsim import MetatomicModel

    from crack_md.calculators.metatomic import export

    model = model_of("ace")
    save_model(model, tmp_path / "student.pt")
    export(tmp_path / "student.pt", tmp_path / "exported.pt", dtype="float64")
    calculator = CrackCalculator(model, dtype="float64")
    hosted = MetatomicModel(model=tmp_path / "exported.pt", device=CPU)
    state = ts.initialize_state([oxygen_slab(), bulk("Pt")], CPU, torch.float64)
    one, other = hosted(state), CrackModel(calculator)(state)
    for name in ("energy", "forces", "stress"):
        torch.testing.assert_close(one[name], other[name], atol=1e-9, rtol=1e-9)
