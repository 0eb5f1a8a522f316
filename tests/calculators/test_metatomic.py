"""Files of metatomic in metatomic's own calculators, against the model itself."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet

from crack_md import CrackCalculator
from crack_md.errors import ConfigError, CrackError
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from tests.cli.commands import crack_md
from tests.factories import ELEMENTS, oxygen_slab, tiny_model
from tests.models.test_architectures import model_of, small_cell

pytest.importorskip("metatomic.torch", reason="needs metatomic (make engines)")

from metatensor.torch import Labels
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from crack_md.calculators import metatomic

pytestmark = [
    # of PyTorch about TorchScript, and of metatomic about cells with surfaces
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:stress requested but likely"),
]


def exported(model: ForceField, folder: Path, dtype: Any = "float64") -> Path:
    save_model(model, folder / "student.pt")
    metatomic.export(folder / "student.pt", folder / "exported.pt", dtype=dtype)
    return folder / "exported.pt"


@pytest.fixture(scope="module", params=["ace", "painn", "equiformer_v2"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MetatomicCalculator, CrackCalculator]:
    """Return an exported model and the model."""
    model = model_of(request.param)
    scale = EnergyScale(
        std=2.0,
        element_references={8: -3.0, 78: -6.0},
        isolated_references={8: -1.5, 78: -2.0},
    )
    model = ForceField(model.network, scale, model.metadata).double().eval()
    file = exported(model, tmp_path_factory.mktemp("model"))
    return (
        MetatomicCalculator(file, check_consistency=True, device="cpu"),
        CrackCalculator(model, dtype="float64"),
    )


Pair = tuple[MetatomicCalculator, CrackCalculator]


def dimer() -> ase.Atoms:
    return ase.Atoms("PtO", [[0, 0, 0], [0, 1.0, 1.6]])


@pytest.mark.parametrize("structure", [oxygen_slab, small_cell, dimer])
def test_a_file_answers_as_the_model(
    pair: Pair, structure: Callable[[], ase.Atoms]
) -> None:
    atoms, other = structure(), structure()
    atoms.calc, other.calc = pair
    energy = other.get_potential_energy()
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    assert np.abs(other.get_forces()).max() > 0.01
    np.testing.assert_allclose(atoms.get_forces(), other.get_forces(), atol=1e-9)
    if atoms.pbc.all():
        np.testing.assert_allclose(atoms.get_stress(), other.get_stress(), atol=1e-10)


def test_dynamics_follow_the_model(pair: Pair) -> None:
    ends = []
    for calculator in pair:
        atoms = oxygen_slab()
        atoms.calc = calculator
        VelocityVerlet(atoms, timestep=units.fs).run(5)
        ends.append(atoms.positions)
    np.testing.assert_allclose(*ends, atol=1e-10)


def energies(
    calculator: MetatomicCalculator,
    structures: list[ase.Atoms],
    kind: Any,
    selected: list[tuple[int, int]] | None = None,
) -> Any:
    labels = None
    if selected is not None:
        labels = Labels(["system", "atom"], torch.tensor(selected, dtype=torch.int32))
    output = ModelOutput(unit="eV", sample_kind=kind)
    with torch.no_grad():  # neighbor lists of metatomic keep gradients
        answer = calculator.run_model(structures, {"energy": output}, labels)
    return answer["energy"].block()


def test_several_systems_give_energies_of_each_and_of_atoms(pair: Pair) -> None:
    calculator, own = pair
    structures = [oxygen_slab(), dimer(), small_cell()]
    results = own.calculate_many(structures)
    expected = [one["energy"] for one in results]
    found = energies(calculator, structures, "system").values.flatten()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    atomic = energies(calculator, structures, "atom")
    expected = np.concatenate([one["energies"] for one in results])
    np.testing.assert_allclose(atomic.values.flatten(), expected, atol=1e-9)
    assert len(atomic.samples) == sum(map(len, structures))


def test_selected_atoms_alone_count(pair: Pair) -> None:
    calculator, own = pair
    structures = [oxygen_slab(), dimer()]
    parts = [one["energies"] for one in own.calculate_many(structures)]
    chosen = [(0, 2), (0, 12), (1, 1)]
    right = [parts[system][atom] for system, atom in chosen]
    atomic = energies(calculator, structures, "atom", chosen)
    places = map(tuple, atomic.samples.values.tolist())
    found = dict(zip(places, atomic.values.flatten().tolist(), strict=True))
    assert found == pytest.approx(dict(zip(chosen, right, strict=True)), abs=1e-9)
    sums = energies(calculator, structures, "system", chosen).values.flatten()
    np.testing.assert_allclose(sums, [right[0] + right[1], right[2]], atol=1e-9)


def test_the_range_is_enough_for_a_domain_with_images(pair: Pair) -> None:
    """As engines with domains do: images of atoms inside the range, and no cell."""
    calculator, own = pair
    atoms = small_cell()
    reach = calculator.model().capabilities().interaction_range
    images = [
        image for image in itertools.product(range(-9, 10), repeat=3) if any(image)
    ]
    positions, owners = [*atoms.positions], [*range(len(atoms))]
    for image in images:
        moved = atoms.positions + image @ atoms.cell.array
        gaps = np.linalg.norm(moved[:, None] - atoms.positions[None], axis=-1)
        for atom in np.flatnonzero((gaps < reach).any(axis=1)):
            positions.append(moved[atom])
            owners.append(int(atom))
    domain = ase.Atoms(atoms.numbers[owners], positions)
    chosen = [(0, atom) for atom in range(len(atoms))]
    found = energies(calculator, [domain], "system", chosen).values.item()
    atoms.calc = own
    assert found == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


def test_nothing_in_a_file_is_bound_to_a_device(pair: Pair) -> None:
    core = pair[0].model().module.atomic_energies
    constants = [
        str(node)
        for node in core.inlined_graph.nodes()
        if node.kind() == "prim::Constant"
    ]
    assert constants
    assert not [one for one in constants if "Device" in one or "<Tensor>" in one]


def test_capabilities_and_units_are_those_of_the_model(pair: Pair) -> None:
    calculator, own = pair
    capabilities = calculator.model().capabilities()
    config = own.models[0].network.config
    assert capabilities.length_unit == "angstrom"
    assert capabilities.outputs["energy"].unit == "eV"
    assert capabilities.dtype == "float64"
    assert capabilities.atomic_types == list(own.metadata.elements)
    assert capabilities.interaction_range == config.hops * 4.0
    (neighbors,) = calculator.model().requested_neighbor_lists()
    assert (neighbors.cutoff, neighbors.full_list, neighbors.strict) == (
        4.0,
        True,
        True,
    )
    meV = ModelOutput(unit="meV", sample_kind="system")
    found = calculator.run_model(dimer(), {"energy": meV})["energy"].block().values
    atoms = dimer()
    atoms.calc = own
    expected = 1000 * atoms.get_potential_energy()
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_float32_networks_keep_digits_of_total_energies(tmp_path: Path) -> None:
    model = model_of("ace")
    scale = EnergyScale(element_references={78: -1e5})
    model = ForceField(model.network, scale, model.metadata).eval()
    file = exported(model, tmp_path, "float32")
    atoms = oxygen_slab()
    other = atoms.copy()
    atoms.calc = MetatomicCalculator(file, device="cpu")
    other.calc = CrackCalculator(model, dtype="float64")
    # float32 has steps of 0.06 eV at 1.2 MeV
    assert atoms.get_potential_energy() == pytest.approx(
        other.get_potential_energy(), abs=1e-4
    )


def test_unknown_elements_are_refused(pair: Pair) -> None:
    atoms = molecule("H2O")
    atoms.numbers[0] = 89
    atoms.calc = pair[0]
    with pytest.raises(Exception, match="does not support the atomic type '89'"):
        atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"neighbors": "strict"}, "it keeps the 8 nearest neighbors"),
        ({"forces": "direct"}, "its forces are direct"),
        (
            {"metadata": ModelMetadata("adsorption", ELEMENTS)},
            "it predicts adsorption energies",
        ),
        ({"scale": EnergyScale(mean=-2.5)}, "-2.5 eV of each structure"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        exported(tiny_model(**options), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exported.pt").exists()


def test_a_file_that_answers_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = metatomic.AtomicEnergies.forward

    def wrong(self: Any, *inputs: torch.Tensor) -> torch.Tensor:
        return works(self, *inputs) + 0.01 * inputs[0].square().sum()

    monkeypatch.setattr(metatomic.AtomicEnergies, "forward", wrong)
    with pytest.raises(CrackError, match="answers otherwise"):
        exported(model_of("ace"), tmp_path)
    assert not (tmp_path / "exported.pt").exists()


def test_a_file_runs_where_this_package_is_not_installed(tmp_path: Path) -> None:
    file = exported(model_of("ace"), tmp_path)
    code = f"""
import sys
sys.modules["crack_md"] = None
from ase import Atoms
from metatomic_ase import MetatomicCalculator
atoms = Atoms("PtO", [[0, 0, 0], [0, 1.0, 1.6]])
atoms.calc = MetatomicCalculator({str(file)!r}, device="cpu")
print(atoms.get_potential_energy())
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    atoms = dimer()
    atoms.calc = CrackCalculator(model_of("ace"), dtype="float64")
    assert float(ran.stdout) == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


def test_the_command_writes_a_file_and_says_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(model_of("painn"), "student.pt")
    ran = crack_md("export", "student.pt", "--format", "metatomic")
    assert ran.returncode == 0, ran.stderr
    assert "written to student-metatomic.pt: float32" in ran.stdout
    assert "unlike the training data are not in it" in ran.stdout
    calculator = MetatomicCalculator("student-metatomic.pt", device="cpu")
    assert calculator.metadata().name.startswith("crack-md ")


IPI_INPUT = """
<simulation verbosity="quiet" safe_stride="1000">
  <output prefix="out"/>
  <ffdirect name="crack">
    <pes>metatomic</pes>
    <parameters>{template: start.xyz, model: exported.pt}</parameters>
  </ffdirect>
  <system>
    <initialize nbeads="1"><file mode="ase">start.xyz</file></initialize>
    <forces><force forcefield="crack"/></forces>
    <ensemble/>
    <motion mode="dynamics">
      <dynamics mode="nve"><timestep units="femtosecond">0.5</timestep></dynamics>
    </motion>
  </system>
</simulation>
"""


@pytest.mark.filterwarnings("ignore")  # of i-PI's own modules
def test_the_driver_of_ipi_for_metatomic_is_as_ase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ipi", reason="needs i-PI (make engines)")
    from ipi.scripting.interactive import InteractiveSimulation

    monkeypatch.chdir(tmp_path)
    model, atoms = model_of("ace"), oxygen_slab()
    exported(model, tmp_path)
    atoms.info.clear()  # what extxyz cannot hold
    ase.io.write("start.xyz", atoms, columns=["symbols", "positions"])
    run = InteractiveSimulation(IPI_INPUT)
    run.set_structures(atoms)
    run.run(3, write_outputs=False)
    atoms = run.get_structures()
    atoms.pbc = True
    atoms.calc = CrackCalculator(model, dtype="float64")
    potential = float(run.properties("potential"))
    # i-PI's electronvolt differs from ASE's in the eighth digit
    assert potential == pytest.approx(atoms.get_potential_energy(), rel=2e-7)
    forces = np.reshape(run.syslist[0].forces.f, (-1, 3)) * units.Hartree / units.Bohr
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-6)
    virial = np.asarray(run.syslist[0].forces.vir) * units.Hartree
    expected = -atoms.get_stress(voigt=False) * atoms.get_volume()
    # i-PI keeps the upper triangle
    np.testing.assert_allclose(np.triu(virial), np.triu(expected), atol=1e-5)
