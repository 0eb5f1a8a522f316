"""The real i-PI against ASE, with the packaged student."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import add_adsorbate, fcc111
from ase.md.verlet import VelocityVerlet

from crack_md import CrackCalculator
from crack_md.calculators import drivers
from crack_md.errors import ConfigError, StructureError
from crack_md.models.registry import model_names

pytest.importorskip("ipi", reason="needs i-PI (make engines)")
pytestmark = [
    pytest.mark.skipif(not model_names(), reason="this tree has no packaged student"),
    pytest.mark.filterwarnings("ignore"),  # of i-PI's own modules
]
INPUT = """
<simulation verbosity="quiet" safe_stride="1000">
  <output prefix="{folder}/out"/>
  <total_steps>1000</total_steps>
  <prng><seed>7</seed></prng>
  <ffdirect name="crack">
    <pes>custom</pes> <pes_path>{path}</pes_path> <batch_size>{beads}</batch_size>
    <parameters>{{template: {folder}/start.xyz, dtype: float64}}</parameters>
  </ffdirect>
  <system>
    <initialize nbeads="{beads}">
      <file mode="ase">{folder}/start.xyz</file>
      <velocities mode="thermal" units="kelvin">300</velocities>
    </initialize>
    <forces><force forcefield="crack"/></forces>
    <ensemble><temperature units="kelvin">300</temperature></ensemble>
    <motion mode="dynamics">
      <fixcom>False</fixcom>
      <dynamics mode="nve"><timestep units="femtosecond">0.5</timestep></dynamics>
    </motion>
  </system>
</simulation>
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """i-PI writes a restart file where it runs."""
    monkeypatch.chdir(tmp_path)


def hydrogen_on_platinum() -> ase.Atoms:
    slab = fcc111("Pt", (2, 2, 2), a=3.97, vacuum=5.0, periodic=True)
    slab.cell[2] = [0.3, 0.2, slab.cell[2, 2]]
    add_adsorbate(slab, "H", 1.0, "fcc")
    slab.rattle(0.05, seed=1)
    # of Pt at about 300 K, in ASE units
    slab.set_velocities(np.random.default_rng(3).normal(0, 0.012, (len(slab), 3)))
    return slab


def simulation(folder: Path, atoms: ase.Atoms, beads: int = 1) -> Any:
    from ipi.scripting.interactive import InteractiveSimulation

    ase.io.write(folder / "start.xyz", atoms, columns=["symbols", "positions"])
    return InteractiveSimulation(
        INPUT.format(folder=folder, path=drivers.__file__, beads=beads)
    )


def test_nve_follows_ase(tmp_path: Path) -> None:
    atoms = hydrogen_on_platinum()
    run = simulation(tmp_path, atoms)
    run.set_structures(atoms)
    student = CrackCalculator(dtype="float64")
    atoms.calc = student
    begin = atoms.get_total_energy()
    run.run(20)
    VelocityVerlet(atoms, timestep=0.5 * units.fs).run(20)
    assert run.get_structures().positions == pytest.approx(atoms.positions, abs=1e-6)
    kinetic = float(run.properties("kinetic_md"))
    potential = float(run.properties("potential"))
    # i-PI's electronvolt differs from ASE's in the eighth digit
    assert potential == pytest.approx(atoms.get_potential_energy(), rel=2e-7)
    assert potential + kinetic == pytest.approx(begin, abs=2e-3)
    structure = run.get_structures()
    structure.pbc = True
    structure.calc = student
    np.testing.assert_allclose(
        np.reshape(run.syslist[0].forces.f, (-1, 3)) * units.Hartree / units.Bohr,
        structure.get_forces(),
        atol=1e-6,
    )
    virial = np.asarray(run.syslist[0].forces.vir) * units.Hartree
    expected = -structure.get_stress(voigt=False) * structure.get_volume()
    # i-PI keeps the upper triangle
    np.testing.assert_allclose(np.triu(virial), np.triu(expected), atol=1e-5)


def test_all_beads_share_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, works = [], CrackCalculator.calculate_many

    def calculate_many(
        self: CrackCalculator,
        structures: Sequence[ase.Atoms],
        properties: Collection[str] = ("energy",),
        **others: Any,
    ) -> Any:
        sizes.append(len(structures))
        return works(self, structures, ("stress",), **others)

    monkeypatch.setattr(CrackCalculator, "calculate_many", calculate_many)
    run = simulation(tmp_path, hydrogen_on_platinum(), beads=4)
    run.run(3)
    assert sizes == [4, 4, 4, 4]
    spread = np.ptp([bead.positions for bead in run.get_structures()], axis=0)
    assert spread[-1].max() > 1e-3  # beads of H have moved apart


def test_an_error_ends_the_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulation(tmp_path, hydrogen_on_platinum())
    run.run(1)

    # i-PI loads the driver's file once more: its classes are not those imported here
    def fail(*_: object, **__: object) -> Any:
        return [StructureError("too near")]

    monkeypatch.setattr(CrackCalculator, "calculate_many", fail)
    with pytest.raises(StructureError, match="too near"):
        run.run(5)


def test_unknown_elements_are_refused_before_the_first_step(tmp_path: Path) -> None:
    atoms = hydrogen_on_platinum()
    atoms.numbers[0] = 52
    with pytest.raises(ConfigError, match="does not know Te"):
        simulation(tmp_path, atoms)
