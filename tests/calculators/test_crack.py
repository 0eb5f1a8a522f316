import copy
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from crack_md.calculators import CrackCalculator
from crack_md.calculators.batched import Trajectory
from crack_md.errors import CheckpointError, ConfigError, CrackError, StructureError
from crack_md.graph import AtomGraph
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import ModelMetadata
from tests.factories import ELEMENTS, oxygen_slab, tiny_model, water

ADSORPTION = ModelMetadata("adsorption", ELEMENTS)


def calculator(**changes: object) -> CrackCalculator:
    return CrackCalculator(tiny_model(**changes), device="cpu", dtype="float64")


def test_properties_of_a_gradient_model() -> None:
    atoms = oxygen_slab()
    atoms.calc = calculator()
    assert atoms.get_potential_energy() == atoms.calc.results["free_energy"]
    assert atoms.get_forces().shape == (13, 3)
    assert atoms.get_forces().sum(axis=0) == pytest.approx([0, 0, 0], abs=1e-9)
    assert atoms.get_stress().shape == (6,)


def test_stress_follows_the_sign_and_order_of_ase() -> None:
    atoms = bulk("Pt", a=3.9) * (1, 1, 2)
    atoms.rattle(0.1, seed=3)
    atoms.calc = calculator()
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-7)


def test_direct_models_have_no_stress() -> None:
    atoms = oxygen_slab()
    atoms.calc = calculator(forces="direct")
    assert atoms.get_forces().shape == (13, 3)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_molecules_without_cell_have_no_stress() -> None:
    atoms = water()
    atoms.calc = calculator()
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (ase.Atoms(), "no atoms"),
        (ase.Atoms("Pt", [[np.nan, 0, 0]]), "atom 0 is at.*nan"),
        (ase.Atoms("PtO", [[0, 0, 0], [np.inf, 0, 0]]), "atom 1 is at.*inf"),
        (ase.Atoms("Pt", pbc=True), "set the cell"),
        (ase.Atoms("Pt", cell=[4, 4, 0], pbc=True), "set the cell"),
        (ase.Atoms("AuPt", [[0, 0, 0], [0, 0, 3]]), "does not know Au"),
        (ase.Atoms("Pt2"), "apart"),
    ],
)
def test_refused_structures(atoms: ase.Atoms, message: str) -> None:
    atoms.calc = calculator()
    with pytest.raises(StructureError, match=message):
        atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (bulk("Pt"), "no H, C, N or O"),
        (fcc111("Pt", (1, 1, 3), vacuum=6), "no H, C, N or O"),
        (ase.Atoms("Pt2O", np.eye(3) * 3, tags=[0, 1, 1]), "no atom with tag 2"),
        (molecule("H2O"), "nothing but adsorbate"),
    ],
)
def test_adsorption_models_want_an_adsorbate(atoms: ase.Atoms, message: str) -> None:
    atoms.calc = calculator(metadata=ADSORPTION)
    with pytest.raises(StructureError, match=message):
        atoms.get_potential_energy()


def test_adsorption_models_take_tagged_and_untagged_slabs() -> None:
    slab = oxygen_slab()
    slab.set_tags([0] * 12 + [2])
    slab.calc = calculator(metadata=ADSORPTION)
    tagged = slab.get_potential_energy()
    slab.set_tags(0)
    assert slab.get_potential_energy() == tagged


def test_failed_calls_leave_no_stale_results() -> None:
    atoms = oxygen_slab()
    atoms.calc = calculator()
    atoms.get_forces()
    atoms.positions[0, 0] = np.nan
    for _ in range(2):
        with pytest.raises(StructureError):
            atoms.get_forces()
    assert atoms.calc.results == {}


def test_results_that_are_not_finite_are_an_error() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.network.norm.affine_weight.fill_(torch.nan)
    atoms = oxygen_slab()
    atoms.calc = CrackCalculator(model, device="cpu", dtype="float64")
    with pytest.raises(CrackError, match="not finite"):
        atoms.get_forces()


def test_running_out_of_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calc = calculator()

    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(calc.models[0], "forward", exhausted)
    atoms = oxygen_slab()
    atoms.calc = calc
    with pytest.raises(CrackError, match="ran out of memory on 13 atoms"):
        atoms.get_forces()


def test_changing_sizes_and_cells_follow() -> None:
    calc = calculator()
    slab, gas = oxygen_slab(), water()
    energies = []
    for atoms in (slab, gas, slab):
        atoms.calc = calc
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[2]
    slab.set_cell(slab.cell.array * 1.02, scale_atoms=True)
    assert slab.get_potential_energy() != energies[0]


def test_committee_returns_mean_and_spread() -> None:
    members = [tiny_model(seed=seed) for seed in (0, 1, 2)]
    atoms = oxygen_slab()
    single = []
    for member in members:
        atoms.calc = CrackCalculator(member, device="cpu", dtype="float64")
        single.append((atoms.get_potential_energy(), atoms.get_forces()))
    atoms.calc = CrackCalculator(members, device="cpu", dtype="float64")
    energies = [energy for energy, _ in single]
    forces = [force for _, force in single]
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies))
    results = atoms.calc.results
    assert results["energy_std"] == pytest.approx(np.std(energies, ddof=1))
    np.testing.assert_allclose(results["forces"], np.mean(forces, axis=0))
    np.testing.assert_allclose(results["forces_std"], np.std(forces, axis=0, ddof=1))


@pytest.mark.parametrize("rule", ["smooth", "strict"])
def test_the_skin_changes_no_result(rule: str) -> None:
    model, atoms = tiny_model(neighbors=rule), oxygen_slab()
    with_skin, without = (
        CrackCalculator(model, device="cpu", dtype="float64", skin=skin)
        for skin in (1.0, 0.0)
    )
    generator = np.random.default_rng(0)
    for _ in range(10):
        atoms.positions += generator.normal(scale=0.02, size=atoms.positions.shape)
        atoms.wrap()
        for name in ("energy", "forces"):
            np.testing.assert_array_equal(
                with_skin.get_property(name, atoms), without.get_property(name, atoms)
            )
    (builder,) = with_skin.graph_builders.values()
    assert builder.n_builds == 1


def test_a_committee_shares_one_list_per_rule() -> None:
    members = [tiny_model(seed=seed, cutoff=4.0 + seed // 2) for seed in range(3)]
    atoms = oxygen_slab()
    atoms.calc = CrackCalculator(members, device="cpu", dtype="float64")
    atoms.get_forces()
    builders = atoms.calc.graph_builders
    assert [rule.cutoff for rule in builders] == [4.0, 5.0]
    assert [builder.n_builds for builder in builders.values()] == [1, 1]
    alone = [
        CrackCalculator(member, dtype="float64", device="cpu") for member in members
    ]
    energies = [calc.get_potential_energy(atoms) for calc in alone]
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies))


def test_graphs_are_made_by_builders_that_stay() -> None:
    calc, atoms = calculator(), oxygen_slab()
    trajectory, asked = Trajectory(), []
    for name, builders in (
        ("ase", calc.graph_builders),
        ("batch", calc.evaluator.graph_builders(trajectory)),
    ):
        for rule, build in builders.items():

            def counted(atoms: ase.Atoms, n: str = name, b: Any = build) -> AtomGraph:
                asked.append(n)
                return b(atoms)

            builders[rule] = counted
    calc.get_potential_energy(atoms)
    calc.calculate_many([atoms], trajectories=[trajectory])
    calc.calculate_many([atoms])
    assert asked == ["ase", "batch"]


def test_files_names_and_precision(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    save_model(tiny_model(dtype=torch.float32), path)
    atoms = oxygen_slab()
    atoms.calc = CrackCalculator(path, device="cpu")
    single = atoms.get_potential_energy()
    assert len(atoms.calc.model_sha256) == 64
    atoms.calc = CrackCalculator(str(path), device="cpu", dtype="float64")
    assert atoms.get_potential_energy() == pytest.approx(single, abs=1e-4)
    with pytest.raises(CheckpointError, match=r"missing\.pt"):
        CrackCalculator(tmp_path / "missing.pt")


def test_wrong_options() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match="unknown device"):
        CrackCalculator(model, device="abacus")
    with pytest.raises(ConfigError, match="float16"):
        CrackCalculator(model, dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a skin of -1"):
        CrackCalculator(model, skin=-1.0)
    with pytest.raises(ConfigError, match="empty list"):
        CrackCalculator([])
    with pytest.raises(ConfigError, match="same energy reference"):
        CrackCalculator([model, tiny_model(metadata=ADSORPTION)])


def test_copies_and_pickles_answer_alike() -> None:
    atoms = oxygen_slab()
    original = calculator()
    atoms.calc = original
    energy = atoms.get_potential_energy()
    for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        atoms.calc = twin
        twin.reset()
        assert atoms.get_potential_energy() == energy


def _energy_in_child(calc: CrackCalculator) -> float:
    torch.set_num_threads(1)
    atoms = oxygen_slab()
    atoms.calc = calc
    return float(atoms.get_potential_energy())


def test_processes() -> None:
    calc = calculator()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        elsewhere = pool.submit(_energy_in_child, calc).result()
    assert elsewhere == pytest.approx(_energy_in_child(calc), abs=1e-10)


def test_threads_share_a_calculator() -> None:
    calc = calculator()
    structures = [oxygen_slab(seed=seed) for seed in range(4)]
    expected = []
    for atoms in structures:
        atoms.calc = calculator()
        expected.append(atoms.get_forces())
    found: dict[int, list[np.ndarray]] = {index: [] for index in range(4)}

    def work(index: int) -> None:
        for _ in range(3):
            found[index].append(calc.get_property("forces", structures[index]).copy())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, forces in found.items():
        for force in forces:
            np.testing.assert_allclose(force, expected[index], atol=1e-10)


def test_constraints_and_cell_filters_work() -> None:
    atoms = oxygen_slab()
    atoms.set_constraint(FixAtoms(range(4)))
    atoms.calc = calculator()
    fixed = atoms.positions[:4].copy()
    BFGS(atoms, logfile=None).run(fmax=0.0, steps=2)
    np.testing.assert_array_equal(atoms.positions[:4], fixed)
    cell = bulk("Pt", a=4.1)
    cell.calc = calculator()
    before = cell.cell.volume
    BFGS(FrechetCellFilter(cell), logfile=None).run(fmax=0.0, steps=2)
    assert cell.cell.volume != before


@pytest.mark.parametrize("device", ["mps", "xpu", "hip", "meta", "cpu:1", "vulkan"])
def test_devices_that_cannot_serve_are_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="expected 'auto', 'cpu' or 'cuda"):
        CrackCalculator(tiny_model(), device=device)


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown device"):
        CrackCalculator(tiny_model(), device=[])  # type: ignore[arg-type]


@pytest.mark.parametrize("n_members", [1, 2])
def test_energies_of_atoms_add_up(n_members: int) -> None:
    members = [tiny_model(seed=seed) for seed in range(n_members)]
    slab = oxygen_slab()
    slab.calc = CrackCalculator(members, device="cpu", dtype="float64")
    parts, energy = slab.get_potential_energies(), slab.get_potential_energy()
    assert parts.shape == (len(slab),)
    assert np.ptp(parts) > 1.0  # oxygen and platinum have unlike references
    assert parts.sum() == pytest.approx(energy, abs=1e-9)
