"""Made-up results of DFT programs in the formats that these programs write."""

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Ry

from crack_md.workflows.ranking.dft_inputs import Calculation
from tests.workflows.ranking.screenings import GASES


def _start_of(folder: Path, calculation: Calculation) -> Atoms:
    atoms = ase.io.read(folder / calculation.folder / "start.traj")
    assert isinstance(atoms, Atoms)
    return atoms


def finish(folder: Path, calculation: Calculation, name: str, **change: float) -> None:
    """Write a result whose energies are EMT's, on top of made-up gas molecules."""
    atoms = _start_of(folder, calculation)
    if calculation.role == "gas":
        energy = GASES[calculation.name]
    else:
        still = atoms.copy()
        still.calc = EMT()
        energy = float(still.get_potential_energy())
    atoms.positions[-1, 0] += change.get("moved", 0.0)
    forces = np.zeros((len(atoms), 3))
    forces[0] = [9.0, 0.0, 0.0] if calculation.role != "gas" else 0.0  # held in place
    forces[-1, 2] = change.get("force", 0.01)
    write_result(name, folder / calculation.folder, atoms, energy, forces)


def write_result(
    name: str, folder: Path, atoms: Atoms, energy: float, forces: np.ndarray
) -> None:
    """Write ``vasprun.xml``, ``OUTCAR``, ``espresso.pwo`` or ``relaxed.traj``."""
    if name == "relaxed.traj":
        done = atoms.copy()
        done.calc = SinglePointCalculator(done, energy=energy, forces=forces)
        done.write(folder / name)
        return
    texts = {"vasprun.xml": _vasprun, "OUTCAR": _outcar, "espresso.pwo": _pwo}
    (folder / name).write_text(texts[name](atoms, energy, forces))


def _rows(numbers: np.ndarray) -> str:
    return "".join(
        "<v> " + " ".join(f"{value:.8f}" for value in row) + " </v>\n"
        for row in np.asarray(numbers)
    )


def _vasprun(atoms: Atoms, energy: float, forces: np.ndarray) -> str:
    names = "".join(f"<rc><c>{s}</c><c>1</c></rc>\n" for s in atoms.symbols)
    structure = (
        f'<crystal><varray name="basis">{_rows(atoms.cell.array)}</varray></crystal>'
        f'<varray name="positions">{_rows(atoms.get_scaled_positions())}</varray>'
    )
    levels = (
        f'<i name="e_fr_energy">{energy:.8f}</i><i name="e_0_energy">{energy:.8f}</i>'
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n'
        '<kpoints><varray name="kpointlist"><v> 0.0 0.0 0.0 </v></varray>'
        '<varray name="weights"><v> 1.0 </v></varray></kpoints>\n'
        f'<atominfo><array name="atoms"><set>{names}</set></array></atominfo>\n'
        f'<structure name="initialpos">{structure}</structure>\n'
        f"<calculation><scstep><energy>{levels}</energy></scstep>"
        f'<structure>{structure}</structure><varray name="forces">{_rows(forces)}'
        f"</varray><energy>{levels}</energy></calculation>\n</modeling>\n"
    )


def _outcar(atoms: Atoms, energy: float, forces: np.ndarray) -> str:
    species: list[list[Any]] = []
    for symbol in atoms.symbols:
        if species and species[-1][0] == symbol:
            species[-1][1] += 1
        else:
            species.append([symbol, 1])
    titles = "".join(f" POTCAR:    PAW_PBE {s} 01Jan2000\n" for s, _ in species * 2)
    counts = " ".join(str(count) for _, count in species)
    cell = "".join(
        " " + " ".join(f"{value:14.9f}" for value in (*row, 0.0, 0.0, 0.0)) + "\n"
        for row in atoms.cell.array
    )
    table = "".join(
        " " + " ".join(f"{value:14.8f}" for value in (*place, *force)) + "\n"
        for place, force in zip(atoms.positions, forces, strict=True)
    )
    dashes = " " + "-" * 83 + "\n"
    return (
        f" vasp.6.4.2\n{titles}   ions per type = {counts}\n"
        "   ISPIN  =      1    spin polarized calculation?\n"
        "   NKPTS =      1   k-points in BZ     NKDIM =      1\n"
        "   number of bands    NBANDS=      1\n"
        f"--- Iteration      1(   1)  ---\n"
        " VOLUME and BASIS-vectors are now :\n"
        + dashes
        + "  energy-cutoff  :      450.00\n  volume of cell :      100.00\n"
        "      direct lattice vectors                 reciprocal lattice vectors\n"
        f"{cell}\n"
        " POSITION                                       TOTAL-FORCE (eV/Angst)\n"
        + dashes
        + table
        + dashes
        + "    total drift:                0.0 0.0 0.0\n"
        "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"
        "  ---------------------------------------------------\n"
        f"  free  energy   TOTEN  =      {energy:16.8f} eV\n\n"
        f"  energy  without entropy=      {energy:16.8f}  energy(sigma->0) ="
        f"      {energy:16.8f}\n"
    )


def _pwo(atoms: Atoms, energy: float, forces: np.ndarray) -> str:
    alat = float(np.linalg.norm(atoms.cell.array[0]))
    axes = "".join(
        f"               a({i}) = ( "
        + " ".join(f"{v / alat:.8f}" for v in row)
        + " )\n"
        for i, row in enumerate(atoms.cell.array, start=1)
    )
    sites = "".join(
        f"         {i}           {atom.symbol}   tau({i:4d}) = ( "
        + " ".join(f"{v / alat:.9f}" for v in atom.position)
        + "  )\n"
        for i, atom in enumerate(atoms, start=1)
    )
    pulls = "".join(
        f"     atom {i:4d} type  1   force = "
        + " ".join(f"{v / (Ry / Bohr):13.8f}" for v in force)
        + "\n"
        for i, force in enumerate(forces, start=1)
    )
    return (
        "     Program PWSCF v.7.3 starts on  1Jan2026 at  0: 0: 0\n\n"
        f"     number of atoms/cell      = {len(atoms):12d}\n"
        f"     number of atomic types    = {len(set(atoms.symbols)):12d}\n"
        f"     celldm(1)= {alat / Bohr:11.7f}  celldm(2)=   0.000000\n"
        "     crystal axes: (cart. coord. in units of alat)\n"
        f"{axes}\n   Cartesian axes\n\n"
        "     site n.     atom                  positions (alat units)\n"
        f"{sites}\n"
        f"!    total energy              = {energy / Ry:17.9f} Ry\n\n"
        "     Forces acting on atoms (cartesian axes, Ry/au):\n\n"
        f"{pulls}\n     Total force =     0.000000\n"
    )
