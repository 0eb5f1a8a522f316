"""LAMMPS's ML-IAP with a stand-in for its data: LAMMPS itself was not run."""

import pickle
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list
from ase.stress import voigt_6_to_full_3x3_stress

from crack_md import CrackCalculator
from crack_md.calculators.mliap import UnifiedModel, export
from crack_md.cli.models import export as command
from crack_md.errors import ConfigError, CrackError, StructureError
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from tests.factories import ELEMENTS, oxygen_slab, tiny_model, water
from tests.models.test_architectures import model_of


class RankData:
    """What one rank of LAMMPS shows: its own atoms, ghosts, and pairs of the former.

    After ``mliap_data.cpp``, ``mliap_unified.cpp`` and ``mliap_unified_couple.pyx``:
    arrays are of LAMMPS's kinds, energies and the total can only be written, and pairs
    whose first atom is a ghost count nothing.
    """

    def __init__(
        self, atoms: ase.Atoms, model: UnifiedModel, owned: np.ndarray, *, listed: Any
    ) -> None:
        reach = 2 * model.rcutfac
        i, j, shift, vectors = neighbor_list("ijSD", atoms, reach)
        mine = np.isin(i, owned)
        keys = np.column_stack([j, shift])
        here = np.isin(j, owned) & ~shift.any(axis=1)
        ghosts = np.unique(keys[mine & ~here], axis=0)
        self.owner = np.concatenate([owned, ghosts[:, 0]])
        index = {(atom, 0, 0, 0): place for place, atom in enumerate(owned)}
        index |= {tuple(key): len(owned) + n for n, key in enumerate(ghosts.tolist())}
        self.nlistatoms = self.nlocal = len(owned)
        self.ntotal = len(self.owner)
        self.iatoms = np.arange(len(owned), dtype=np.intc)
        self.pair_i = np.array([index[a, 0, 0, 0] for a in i[mine]], dtype=np.intc)
        self.pair_j = np.array([index[tuple(k)] for k in keys[mine]], dtype=np.intc)
        self.rij = vectors[mine]
        if listed == "ghosts":  # a pair that must not count
            self.pair_i = np.append(self.pair_i, np.intc(len(owned)))
            self.pair_j = np.append(self.pair_j, np.intc(0))
            self.rij = np.vstack([self.rij, [[9.0, 9.0, 9.0]]])
        self.npairs = len(self.pair_i)
        symbols = np.array(atoms.get_chemical_symbols())[self.owner]
        order = {symbol: n for n, symbol in enumerate(model.element_types)}
        self.elems = np.array([order[symbol] for symbol in symbols], dtype=np.intc)
        self.f, self.virial = np.zeros((self.ntotal, 3)), np.zeros((3, 3))

    def update_pair_forces(self, values: np.ndarray) -> None:
        assert values.flags.c_contiguous
        assert values.shape == (self.npairs, 3)
        counted = self.pair_i < self.nlocal
        assert not values[~counted].any()
        np.add.at(self.f, self.pair_i[counted], values[counted])
        np.add.at(self.f, self.pair_j[counted], -values[counted])
        self.virial -= self.rij[counted].T @ values[counted]


def run(
    atoms: ase.Atoms, model: UnifiedModel, *, n_ranks: int = 1, listed: Any = None
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return energy, forces, virial and energies of atoms, as LAMMPS adds them up."""
    energy, virial = 0.0, np.zeros((3, 3))
    forces, parts = np.zeros((len(atoms), 3)), np.zeros(len(atoms))
    for rank in range(n_ranks):
        owned = np.arange(rank, len(atoms), n_ranks)
        data: Any = RankData(atoms, model, owned, listed=listed)
        model.compute_descriptors(data)
        model.compute_gradients(data)
        model.compute_forces(data)
        energy += data.energy
        parts[owned] = data.eatoms
        np.add.at(forces, data.owner, data.f)
        virial += data.virial
    return energy, forces, virial, parts


def check(
    atoms: ase.Atoms, model: ForceField, found: tuple[Any, ...], *, virial: bool = True
) -> None:
    atoms = atoms.copy()
    atoms.calc = CrackCalculator(model, dtype="float64", device="cpu", compile=False)
    energy, forces, tensor, parts = found
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-9)
    np.testing.assert_allclose(parts, atoms.get_potential_energies(), atol=1e-9)
    if virial:
        stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
        np.testing.assert_allclose(tensor, -stress * atoms.get_volume(), atol=1e-8)


def alloy() -> ase.Atoms:
    """Return a skew cell, smaller than the cutoff, that no symmetry spares."""
    atoms = bulk("Pt", a=3.9) * (1, 1, 2)
    atoms.symbols[1] = "Pd"
    skew = np.array([[0, 0.3, 0], [0.2, 0, 0.1], [0, 0.4, 0]])
    atoms.set_cell(atoms.cell.array + skew)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.mark.parametrize("name", ["ace", "painn", "equiformer_v2"])
@pytest.mark.parametrize("listed", [None, "ghosts"])
def test_energies_forces_and_virial_are_those_of_the_calculator(
    name: str, listed: str | None
) -> None:
    model = model_of(name).double().eval()
    for atoms in (alloy(), oxygen_slab()):
        check(atoms, model, run(atoms, UnifiedModel(model), listed=listed))


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_ranks_add_up(n_ranks: int) -> None:
    model = tiny_model()
    found = run(oxygen_slab(), UnifiedModel(model), n_ranks=n_ranks)
    check(oxygen_slab(), model, found)


def test_groups_that_do_not_see_each_other() -> None:
    atoms = water()
    for shift in (200.0, 400.0):
        other = water()
        other.rattle(0.05, seed=int(shift))
        other.positions += shift
        atoms += other
    atoms += ase.Atoms("O", [[0.0, 0.0, 900.0]])
    model = tiny_model()
    check(atoms, model, run(atoms, UnifiedModel(model)), virial=False)


def test_an_atom_alone_has_its_energy() -> None:
    model = tiny_model()
    atoms = ase.Atoms("O", [[0.0, 0.0, 0.0]])
    check(atoms, model, run(atoms, UnifiedModel(model)), virial=False)


def test_a_rank_without_atoms_has_no_energy() -> None:
    data = RankData.__new__(RankData)
    data.nlistatoms, data.iatoms = 0, np.zeros(0, dtype=np.intc)
    UnifiedModel(tiny_model()).compute_forces(data)
    assert data.energy == 0.0  # type: ignore[attr-defined]


def test_the_packaged_student() -> None:
    slab = oxygen_slab()
    model = CrackCalculator(dtype="float64", device="cpu").models[0]
    check(slab, model, run(slab, UnifiedModel(model)))


# ------------------------------------------------------------------------ the files


def test_a_file_answers_as_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    save_model(model, tmp_path / "student.pt")
    out = tmp_path / "student.pickle"
    command(str(tmp_path / "student.pt"), to="mliap", out=out, dtype="float64")
    assert "not in LAMMPS" in capsys.readouterr().out
    loaded = pickle.loads(out.read_bytes())
    assert loaded.element_types == ["H", "O", "Cu", "Pd", "Pt"]
    assert loaded.rcutfac == model.network.config.hops * 4.0 / 2
    check(oxygen_slab(), model, run(oxygen_slab(), loaded))
    loaded.interface = lambda: None  # LAMMPS's, which cannot be pickled
    assert pickle.loads(pickle.dumps(loaded)).interface is None


def test_a_name_that_lammps_reads_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.pickle"):
        command("default", to="mliap", out=tmp_path / "student.pt")
    assert not (tmp_path / "student.pt").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neighbors": "strict", "forces": "direct"}, "nearest neighbors.*direct"),
        ({"metadata": ModelMetadata("adsorption", ELEMENTS)}, "adsorption energies"),
        ({"scale": EnergyScale(mean=1.5)}, "1.5 eV of each structure"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save_model(tiny_model(**changes), tmp_path / "student.pt")
    with pytest.raises(ConfigError, match=f"does not fit LAMMPS's ML-IAP.*{message}"):
        export(
            tmp_path / "student.pt",
            tmp_path / "out.pickle",
            dtype=tiny_model().dtype,
        )
    assert not (tmp_path / "out.pickle").exists()


def test_results_that_are_not_finite_end_the_run() -> None:
    model = tiny_model()
    for weights in model.parameters():
        weights.data *= 1e200
    with pytest.raises(CrackError, match="not finite"):
        run(oxygen_slab(), UnifiedModel(model))


def test_atoms_on_top_of_each_other_end_the_run() -> None:
    atoms = water()
    atoms.positions[1] = atoms.positions[2] + 1e-3
    with pytest.raises(StructureError, match="apart"):
        run(atoms, UnifiedModel(tiny_model()))
