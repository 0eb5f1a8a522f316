import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.calculators.emt import EMT

from crack_md.errors import ConfigError, DataError, StructureError
from crack_md.workflows.phonons.crystal import analyse, bands
from crack_md.workflows.phonons.run import PhononResult, run_phonons
from crack_md.workflows.phonons.settings import PhononSettings
from crack_md.workflows.relax.relax import RelaxSettings
from tests.workflows.phonons.crystals import (
    STIFFNESS,
    SpringCrystal,
    exact_frequencies,
    platinum,
)

pytest.importorskip("phonopy", reason="needs phonopy (pip install 'crack-md[phonons]')")
pytest.importorskip("seekpath", reason="needs seekpath")

FAST = PhononSettings(supercell=(4, 4, 4), spacing_per_A=0.05, mesh_length_A=30.0)


def springs(folder: Path, atoms: Atoms | None = None, **changes: Any) -> PhononResult:
    return run_phonons(
        atoms or platinum(),
        SpringCrystal(platinum()),
        settings=PhononSettings(**{**vars(FAST), **changes}),
        folder=folder,
    )


def test_spring_crystal_has_its_exact_dispersion(tmp_path: Path):
    result = springs(tmp_path)
    assert len(result.phonons.segments) > 4
    for segment in result.phonons.segments:
        exact = exact_frequencies(platinum(), segment.q)
        assert np.allclose(segment.frequency_THz, exact, atol=1e-4)
    labels = {label for s in result.phonons.segments for label in s.labels}
    assert {"Γ", "X", "L", "W", "K", "U"} <= labels
    assert result.phonons.asymmetry < 1e-9
    assert result.phonons.sum_rule_eV_per_A2 < 1e-9
    assert result.phonons.imaginary == ()
    assert result.phonons.n_atoms == 1


def test_heat_of_the_spring_crystal(tmp_path: Path):
    """E₀ = ½ Σ ħω over the zone, and 3k per atom in the heat."""
    result = springs(tmp_path, mesh_length_A=60.0, max_temperature_K=2000.0)
    thermal, n = result.phonons.thermal, 12
    grid = (np.stack(np.meshgrid(*[np.arange(n)] * 3), -1).reshape(-1, 3) + 0.5) / n
    mean = exact_frequencies(platinum(), grid).sum(axis=1).mean()
    zero_point = 0.5 * mean * 1e12 * units._hplanck / units._e
    assert thermal.zero_point_energy_eV == pytest.approx(zero_point, rel=2e-3)
    heat = thermal.heat_capacity_eV_per_K[-1] / units.kB
    assert heat == pytest.approx(3.0, rel=2e-3)
    density = result.phonons.density
    bin_width = density.frequency_THz[1] - density.frequency_THz[0]
    assert density.states_per_THz.sum() * bin_width == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize("form", ["conventional", "turned"])
def test_phonons_do_not_depend_on_the_cell_that_is_given(form: str, tmp_path: Path):
    """The path is that of the crystal, however its cell was chosen."""
    given, supercell = bulk("Pt", "fcc", a=3.9, cubic=True), (2, 2, 2)
    if form == "turned":
        given = make_supercell(platinum(), [[1, 0, 0], [-1, 1, 0], [0, 0, 1]])
        supercell = (4, 4, 4)
    same = springs(tmp_path / "same", given, supercell=supercell).phonons
    known = springs(tmp_path / "known").phonons
    assert same.n_atoms == 1
    assert len(same.segments) == len(known.segments)
    for one, other in zip(same.segments, known.segments, strict=True):
        assert one.labels == other.labels
        ends = [s.frequency_THz[[0, -1]] for s in (one, other)]
        # another supercell interpolates otherwise; neighbors are all inside both
        assert np.allclose(*ends, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*Point group symmetries:UserWarning")  # phonopy's
@pytest.mark.parametrize(
    ("light", "smallest"),
    [([0], [30.0, 195.084, 195.084, 195.084]), ([0, 1], [30.0, 195.084])],
    ids=["L1_2", "L1_0"],
)
def test_isotopes_are_atoms_of_their_own(
    light: list[int], smallest: list[float], tmp_path: Path
):
    """The cell, the path and the mesh are those of elements *and* masses."""
    import phonopy

    crystal = bulk("Pt", "fcc", a=3.9, cubic=True)
    masses = crystal.get_masses()
    masses[light] = 30.0
    crystal.set_masses(masses)
    shape = {"supercell": (2, 2, 2), "mesh_length_A": 25.0}
    found = springs(tmp_path, crystal, **shape).phonons
    cell = phonopy.load(tmp_path / "phonopy_params.yaml", log_level=0).primitive
    assert sorted(cell.masses) == pytest.approx(smallest)
    assert found.n_atoms == len(smallest)
    primitive = Atoms(
        cell.symbols, cell.positions, cell=cell.cell, masses=cell.masses, pbc=True
    )
    for segment in found.segments:
        exact = exact_frequencies(primitive, segment.q)
        # the lowest at Γ are roots of round-off
        assert np.allclose(segment.frequency_THz, exact, atol=2e-4)
    grid = (np.stack(np.meshgrid(*[np.arange(8)] * 3), -1).reshape(-1, 3) + 0.5) / 8
    mean = exact_frequencies(primitive, grid).sum(axis=1).mean()
    zero_point = 0.5 * mean * 1e12 * units._hplanck / units._e
    assert found.thermal.zero_point_energy_eV == pytest.approx(zero_point, rel=2e-3)


def test_path_follows_the_axes_of_the_primitive_cell():
    """Z is along the axis of fourfold symmetry, here the first one."""
    import phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        symbols=["Pt"], cell=np.diag([4.0, 3.0, 3.0]), scaled_positions=[[0, 0, 0]]
    )
    phonon = phonopy.Phonopy(cell, np.eye(3, dtype=int), primitive_matrix="P")
    phonon.force_constants = np.zeros((1, 1, 3, 3))
    points = {
        label: tuple(np.round(q, 6) + 0.0)
        for segment in bands(phonon, 0.05)
        for label, q in zip(segment.labels, segment.q[[0, -1]], strict=True)
    }
    assert points["Z"] == (0.5, 0.0, 0.0)
    assert points["X"][0] == 0.0
    assert points["M"] == (0.0, 0.5, 0.5)


def test_forces_of_no_energy_show_before_they_are_symmetrised(tmp_path: Path):
    """CsCl with forces w k R̂R̂ᵀ u: sixteen bonds, two sums over eight of them."""
    crystal = bulk("CsCl", "cesiumchloride", a=4.0)
    for heavy, exact in ((1.0, 0.0), (1.2, np.sqrt(16 * 0.2**2 / (88 / 3 * 2.44)))):
        result = run_phonons(
            crystal,
            SpringCrystal(crystal, grid=2, weights={"Cs": heavy}),
            settings=PhononSettings(**{**vars(FAST), "supercell": (2, 2, 2)}),
            folder=tmp_path / f"{heavy}",
        )
        assert result.phonons.asymmetry == pytest.approx(exact, abs=1e-9)
        assert result.phonons.sum_rule_eV_per_A2 < 1e-9


def test_unstable_modes_are_named(tmp_path: Path):
    """Springs that push: every mode is imaginary, X by the exact amount."""

    class Upside(SpringCrystal):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            self.results["forces"] *= -1

    result = run_phonons(platinum(), Upside(platinum()), settings=FAST, folder=tmp_path)
    modes = [mode for mode in result.phonons.imaginary if mode.label == "X"]
    exact = exact_frequencies(platinum(), np.array([modes[0].q]))[0]
    found = sorted(-mode.frequency_THz for mode in modes if mode.q == modes[0].q)
    assert found == pytest.approx(exact, abs=1e-4)
    assert all(mode.commensurate for mode in modes)
    assert modes[0].frequency_per_cm == pytest.approx(33.35641 * modes[0].frequency_THz)
    assert {mode.branch for mode in modes} == {1, 2, 3}
    values = [mode.frequency_THz for mode in result.phonons.imaginary]
    assert values == sorted(values)
    assert "Γ" not in {mode.label for mode in result.phonons.imaginary}
    assert any(not mode.commensurate for mode in result.phonons.imaginary)


def test_copper_by_emt_agrees_with_ase_and_with_experiment(tmp_path: Path):
    """Svensson, Brockhouse and Rowe (1967), 296 K: X 7.25 and 5.08, L 7.30 and 3.42."""
    from ase.phonons import Phonons

    relaxation = RelaxSettings(cell="full", symmetry=True, fmax=1e-4)
    result = run_phonons(
        bulk("Cu"),
        EMT(),
        settings=FAST,
        folder=tmp_path / "ours",
        relaxation=relaxation,
    )
    theirs = Phonons(
        result.atoms.copy(), EMT(), supercell=(4, 4, 4), delta=0.01, name=tmp_path / "c"
    )
    theirs.run()
    theirs.read(acoustic=True)
    experiment = {"X": (5.08, 5.08, 7.25), "L": (3.42, 3.42, 7.30)}
    for segment in result.phonons.segments:
        for point, label in ((0, segment.labels[0]), (-1, segment.labels[1])):
            if label not in ("Γ", "X", "L"):
                continue  # not of the supercell: interpolated in another way
            ours = segment.frequency_THz[point]
            other = theirs.band_structure(segment.q[[point]], verbose=False)[0]
            other = other / units._hplanck * units._e / 1e12
            assert np.allclose(ours, other, atol=0.01)
            if label in experiment:
                assert np.allclose(ours, experiment[label], rtol=0.15)
    assert result.phonons.asymmetry < 1e-5
    assert result.summary["max_stress_GPa"] < 0.01


def test_files_hold_it_all_and_forces_are_not_repeated(tmp_path: Path):
    import phonopy

    result = springs(tmp_path)
    found = json.loads((tmp_path / "phonons.json").read_text())
    assert found["supercell"] == [4, 4, 4]
    assert found["supercell_atoms"] == 64
    assert found["n_displacements"] == 1
    assert found["max_frequency_THz"] == result.phonons.max_frequency
    assert np.allclose(
        found["bands"][0]["frequency_THz"], result.phonons.segments[0].frequency_THz
    )
    with (tmp_path / "thermal.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "temperature_K",
        "free_energy_eV",
        "entropy_eV_per_K",
        "heat_capacity_eV_per_K",
    ]
    assert float(rows[30]["temperature_K"]) == 300.0
    again = phonopy.load(tmp_path / "phonopy_params.yaml")
    assert np.allclose(again.force_constants[0, 0], np.eye(3) * 4 * STIFFNESS)
    # a second run finds its forces: what the model says now is not asked for
    calculator = SpringCrystal(platinum(), weights={"Pt": 3.0})
    again = run_phonons(platinum(), calculator, settings=FAST, folder=tmp_path)
    assert again.phonons.max_frequency == result.phonons.max_frequency


def test_other_settings_do_not_mix(tmp_path: Path):
    springs(tmp_path)
    with pytest.raises(DataError, match="displacement_A"):
        springs(tmp_path, displacement_A=0.02)


def test_supercell_from_a_length():
    settings = PhononSettings(min_length_A=11.0)
    assert settings.repeats(bulk("Cu", cubic=True, a=3.6)) == (4, 4, 4)
    assert settings.repeats(bulk("Cu", a=3.6)) == (5, 5, 5)
    with pytest.raises(StructureError, match="phonons need a crystal"):
        settings.repeats(Atoms("Cu"))
    with pytest.raises(ConfigError, match="displacement_A is 0"):
        PhononSettings(displacement_A=0.0)


@pytest.fixture
def real_data(references: Path) -> Path:
    folder = references / "data" / "phonopy"
    if not folder.is_dir():
        pytest.skip(f"no phonopy force sets in {folder}")
    return folder


def test_published_forces_on_salt(real_data: Path):
    """DFT forces on NaCl, with Born charges: they part LO from TO at Γ."""
    import phonopy

    files = {
        "phonopy_yaml": real_data / "NaCl__phonopy_disp.yaml",
        "force_sets_filename": real_data / "NaCl__FORCE_SETS",
    }
    born = real_data / "NaCl__BORN"
    found = {}
    for name, charges in (("neutral", {}), ("charged", {"born_filename": born})):
        options = {"is_nac": bool(charges), "produce_fc": False, "log_level": 0}
        phonon = phonopy.load(**files, **charges, **options)
        found[name] = analyse(phonon, None, settings=FAST)
    neutral, charged = found["neutral"], found["charged"]
    at_gamma = neutral.segments[0].frequency_THz[0]
    assert at_gamma[:3] == pytest.approx([0.0] * 3, abs=1e-3)
    assert at_gamma[3:] == pytest.approx([4.6] * 3, abs=0.1)
    assert charged.max_frequency == pytest.approx(7.43, abs=0.1)
    assert neutral.n_atoms == 2
    assert 0 < neutral.asymmetry < 0.01
    assert neutral.imaginary == ()
    heat = charged.thermal.heat_capacity_eV_per_K[-1] / units.kB
    assert heat == pytest.approx(6.0, rel=0.01)


@pytest.mark.parametrize(
    ("name", "cell", "dim", "calculator", "highest", "measured"),
    [
        ("Si-gruneisen__orig", "POSCAR-unitcell", 2, None, "Γ", 15.53),
        ("Al-ABACUS__abacus-pw", None, 2, "abacus", "X", 9.69),
    ],
)
def test_published_forces_on_elements(
    real_data: Path,
    name: str,
    cell: str | None,
    dim: int,
    calculator: str | None,
    highest: str,
    measured: float,
):
    """The highest modes, measured: silicon at Γ 15.53 THz, aluminium at X 9.69 THz."""
    import phonopy

    options: dict[str, Any] = {"phonopy_yaml": real_data / f"{name}__phonopy_disp.yaml"}
    if cell is not None:
        options = {
            "unitcell_filename": real_data / f"{name}__{cell}",
            "supercell_matrix": [dim] * 3,
        }
    phonon = phonopy.load(
        **options,
        force_sets_filename=real_data / f"{name}__FORCE_SETS",
        calculator=calculator,
        primitive_matrix="F",
        produce_fc=False,
        log_level=0,
    )
    found = analyse(phonon, None, settings=FAST)
    assert found.max_frequency == pytest.approx(measured, rel=0.05)
    top = max(
        (float(segment.frequency_THz[point, -1]), label)
        for segment in found.segments
        for point, label in zip((0, -1), segment.labels, strict=True)
    )
    assert top[1] == highest
    assert found.imaginary == ()
