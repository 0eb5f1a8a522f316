"""What DFT programs are given for a structure, and the words that explain it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import kptdensity2monkhorstpack
from ase.calculators.vasp.create_input import GenerateVaspInput
from ase.io.espresso import write_espresso_in
from ase.units import Bohr, Ry

from crack_md.files import write_text

Code = Literal["vasp", "espresso", "gpaw"]
FUNCTIONAL = "RPBE"
CUTOFF_EV = {"vasp": 450.0, "gpaw": 500.0, "espresso": 50.0 * Ry}
DENSITY_CUTOFF_RY = 400.0
KPOINT_DENSITY = 4.0
"""Points per 1/Å, as ASE counts: 6x6x1 for a p(2x2) on Pt(111)."""
SMEARING_EV = 0.1
FMAX, STEPS = 0.03, 300
MOMENTS = {"Fe": 3.0, "Co": 2.0, "Ni": 1.0}
"""µB to start from, above those of the metals: 2.2, 1.6, 0.6."""
FRACTIONS = {"Fe": 0.4, "Co": 0.3, "Ni": 0.2}
"""For Quantum ESPRESSO, of the valence electrons; not every version reads µB."""


def kpoints(atoms: Atoms, *, is_slab: bool) -> tuple[int, int, int]:
    """Return the Gamma-centered grid of a slab, one point along its normal."""
    if not is_slab:
        return 1, 1, 1
    grid = kptdensity2monkhorstpack(atoms, KPOINT_DENSITY, even=False)
    return int(grid[0]), int(grid[1]), 1


def header(code: Code) -> list[str]:
    """Return in lines what the inputs assume, and what is left to the user."""
    dipole = {
        "vasp": "LDIPOL along c",
        "espresso": "a sawtooth in the middle of the vacuum (tefield, dipfield)",
        "gpaw": "a dipole layer in xy",
    }[code]
    return [
        f"Inputs for {NAMES[code]} written by crack-md rank --write {code}.",
        "Sensible defaults, not converged settings: check them on one slab first.",
        f"functional {FUNCTIONAL}; cutoff {_cutoff(code)}; Gamma-centered k-points, "
        f"{KPOINT_DENSITY:g} per 1/Å, one along c, and Gamma alone for molecules",
        f"smearing {SMEARING_EV:g} eV; dipole correction of slabs: {dipole}",
        "spin-polarised where Fe, Co or Ni are, from "
        + ", ".join(f"{s} {m:g}" for s, m in moments(code).items())
        + (" of the valence electrons" if code == "espresso" else " µB")
        + "; no other magnetism, no +U, no dispersion, no solvent",
        f"relaxed to {FMAX:g} eV/Å in the cell of the screening: its lattice constant "
        "is that of a model, and slabs are strained where the functional has another",
        f"You supply: {SUPPLIED[code]}",
        f"Leave in each folder: {RESULTS[code]}. Then: crack-md rank RESULTS "
        "--calibrate THIS_FOLDER",
    ]


NAMES = {"vasp": "VASP", "espresso": "Quantum ESPRESSO (pw.x)", "gpaw": "GPAW"}
SUPPLIED = {
    "vasp": "POTCAR in each folder, of the PBE set, elements in the order of POSCAR: "
    "its licence does not let us ship it",
    "espresso": "PBE pseudopotentials named ELEMENT.UPF (SSSP, for example) in the "
    "folder ./pseudo, or change pseudo_dir and the names",
    "gpaw": "the PAW setups, by GPAW_SETUP_PATH or gpaw install-data",
}
RESULTS = {
    "vasp": "vasprun.xml (or OUTCAR)",
    "espresso": "what pw.x prints, as espresso.pwo",
    "gpaw": "relaxed.traj, which the script writes",
}


def _cutoff(code: Code) -> str:
    if code == "espresso":
        return f"{CUTOFF_EV[code] / Ry:g} Ry, {DENSITY_CUTOFF_RY:g} Ry for the density"
    return f"{CUTOFF_EV[code]:g} eV"


def moments(code: Code) -> Mapping[str, float]:
    """Return what magnetic moments start from, by symbol."""
    return FRACTIONS if code == "espresso" else MOMENTS


def _write_vasp(atoms: Atoms, folder: Path, *, is_slab: bool) -> None:
    """Write INCAR, KPOINTS and POSCAR; POTCAR is the user's."""
    writer: Any = GenerateVaspInput()
    writer.set(
        xc="rpbe",
        encut=CUTOFF_EV["vasp"],
        ediff=1e-5,
        nelm=120,
        algo="Fast",
        prec="Accurate",
        ibrion=2,
        nsw=STEPS,
        ediffg=-FMAX,
        isif=2,
        isym=0,
        ismear=1 if is_slab else 0,
        sigma=SMEARING_EV if is_slab else 0.01,
        lreal="Auto" if is_slab else False,
        lasph=True,
        lwave=False,
        lcharg=False,
        kpts=kpoints(atoms, is_slab=is_slab),
        gamma=True,
    )
    if is_slab:
        center = np.mean(atoms.get_scaled_positions(wrap=False), axis=0)
        writer.set(idipol=3, ldipol=True, dipol=np.round(center, 4).tolist())
    if atoms.has("initial_magmoms"):
        writer.set(ispin=2)
    # what its initialize() finds out as well, which asks for POTCAR files
    writer.spinpol = atoms.has("initial_magmoms")
    writer.sort = list(range(len(atoms)))
    writer.write_incar(atoms, directory=str(folder))
    writer.write_kpoints(atoms, directory=str(folder))
    _put_header(folder / "INCAR", "# ", "vasp")
    atoms.write(folder / "POSCAR", format="vasp")


def _write_espresso(atoms: Atoms, folder: Path, *, is_slab: bool) -> None:
    """Write espresso.pwi; pseudopotentials are the user's."""
    system: dict[str, Any] = {
        "ecutwfc": CUTOFF_EV["espresso"] / Ry,
        "ecutrho": DENSITY_CUTOFF_RY,
        "input_dft": FUNCTIONAL,
        "occupations": "smearing",
        "smearing": "mv",
        "degauss": round((SMEARING_EV if is_slab else 0.01) / Ry, 6),
        "nosym": True,
    }
    control: dict[str, Any] = {
        "calculation": "relax",
        "nstep": STEPS,
        "forc_conv_thr": round(FMAX / (Ry / Bohr), 8),
        "tprnfor": True,
        "pseudo_dir": "./pseudo",
        "outdir": "./tmp",
    }
    if is_slab:
        control |= {"tefield": True, "dipfield": True}
        system |= {"edir": 3, "eamp": 0.0, "eopreg": 0.05, "emaxpos": _vacuum(atoms)}
    if atoms.has("initial_magmoms"):
        system["nspin"] = 2
    with (folder / "espresso.pwi").open("w", encoding="utf-8") as file:
        write_espresso_in(
            file,
            atoms,
            input_data={
                "control": control,
                "system": system,
                "electrons": {"conv_thr": 1e-7, "mixing_beta": 0.3},
            },
            pseudopotentials={s: f"{s}.UPF" for s in set(atoms.symbols)},
            kpts=kpoints(atoms, is_slab=is_slab) if is_slab else None,
        )
    _put_header(folder / "espresso.pwi", "! ", "espresso")


def _vacuum(atoms: Atoms) -> float:
    """Return where the field of the dipole correction begins, a fraction of c."""
    heights = np.sort(atoms.get_scaled_positions(wrap=True)[:, 2])
    gaps = np.diff(np.append(heights, heights[0] + 1.0))
    widest = int(gaps.argmax())
    middle = heights[widest] + gaps[widest] / 2 - 0.025  # half of eopreg
    return round(float(middle % 1.0), 4)


GPAW_SCRIPT = """\
from ase.io import read
from ase.optimize import LBFGS
from gpaw import GPAW, PW

atoms = read("start.traj")
{boundary}
atoms.calc = GPAW(
    mode=PW({cutoff:g}),
    xc="{functional}",
    kpts={{"size": {kpts}, "gamma": True}},
    occupations={{"name": "{smearing}", "width": {width:g}}},
    spinpol={spin},
    symmetry="off",
{poisson}    txt="gpaw.txt",
)
LBFGS(atoms, trajectory="relaxed.traj", logfile="relax.log").run(
    fmax={fmax:g}, steps={steps}
)
"""


def _write_gpaw(atoms: Atoms, folder: Path, *, is_slab: bool) -> None:
    """Write relax.py; setups are the user's."""
    script = GPAW_SCRIPT.format(
        boundary="atoms.pbc = [True, True, False]" if is_slab else "atoms.pbc = False",
        cutoff=CUTOFF_EV["gpaw"],
        functional=FUNCTIONAL,
        kpts=kpoints(atoms, is_slab=is_slab),
        smearing="marzari-vanderbilt" if is_slab else "fermi-dirac",
        width=SMEARING_EV if is_slab else 0.01,
        spin=atoms.has("initial_magmoms"),
        poisson='    poissonsolver={"dipolelayer": "xy"},\n' if is_slab else "",
        fmax=FMAX,
        steps=STEPS,
    )
    write_text(folder / "relax.py", script)
    _put_header(folder / "relax.py", "# ", "gpaw")


def _put_header(path: Path, mark: str, code: Code) -> None:
    lines = [mark + line for line in header(code)]
    text = path.read_text(encoding="utf-8")
    write_text(path, "\n".join(lines) + "\n" + text)


def write_code_input(code: Code, atoms: Atoms, folder: Path, *, is_slab: bool) -> None:
    """Write the files of one relaxation, each under the header.

    Args:
        code: which program.
        atoms: by element, with magnetic moments where there are some.
        folder: there already.
        is_slab: or a molecule in a box.
    """
    writers: Mapping[Code, Callable[..., None]] = {
        "vasp": _write_vasp,
        "espresso": _write_espresso,
        "gpaw": _write_gpaw,
    }
    writers[code](atoms, folder, is_slab=is_slab)
