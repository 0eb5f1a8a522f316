"""Small downloads in the formats of OC20: S2EF chunks, relaxations, the mapping."""

import io
import lzma
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.extxyz import write_xyz

COLUMNS = ["symbols", "positions", "move_mask", "tags", "forces"]
METALS = ("Pt", "Ag", "Cu", "Pd")


def frame(number: int, *, adsorbate: str = "O", rattle: float = 0.05) -> Atoms:
    """Return a 2×2×3 slab with OC20's tags, fixed atoms, and EMT's energy and forces.

    Frames whose numbers are equal modulo 4 are of the same metal.
    """
    slab = fcc111(METALS[number % 4], (2, 2, 3), vacuum=6.0)
    add_adsorbate(slab, adsorbate, 1.4, "fcc")
    slab.pbc = True
    slab.info = {}
    layer = slab.get_tags()
    slab.set_tags(np.where(layer == 0, 2, np.where(layer == 1, 1, 0)))
    slab.rattle(rattle, rng=np.random.default_rng(number))
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == 0))
    slab.calc = EMT()
    energy = slab.get_potential_energy()
    forces = slab.get_forces(apply_constraint=False)
    slab.calc = SinglePointCalculator(
        slab, energy=energy, free_energy=energy - 0.001, forces=forces
    )
    return slab


def as_text(frames: Sequence[Atoms]) -> str:
    """Return frames as OC20 writes them."""
    stream = io.StringIO()
    write_xyz(stream, list(frames), columns=COLUMNS)
    return stream.getvalue()


def relaxation(number: int, *, steps: int = 3, adsorbate: str = "O") -> list[Atoms]:
    """Return frames whose forces fall, the last ones to nothing."""
    frames = []
    for step in range(steps):
        atoms = frame(number, adsorbate=adsorbate, rattle=0.05 / (1 + step))
        energy = atoms.get_potential_energy()
        fall = (steps - 1 - step) / max(steps - 1, 1)
        forces = atoms.get_forces(apply_constraint=False) * fall
        atoms.calc = SinglePointCalculator(
            atoms, energy=energy, free_energy=energy, forces=forces
        )
        frames.append(atoms)
    return frames


def write_packed(path: Path, text: str) -> Path:
    """Write a text compressed, as every file of a download is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(text.encode()))
    return path


def write_s2ef(folder: Path, chunks: Sequence[Sequence[tuple[str, Atoms]]]) -> Path:
    """Write chunks of (system, frame); the reference energy is 1 eV below the first."""
    for number, chunk in enumerate(chunks):
        lines = [
            f"{system},frame{7 * place},{reference_energy(atoms)}\n"
            for place, (system, atoms) in enumerate(chunk)
        ]
        frames = as_text([atoms for _, atoms in chunk])
        write_packed(folder / f"{number}.extxyz.xz", frames)
        write_packed(folder / f"{number}.txt.xz", "".join(lines))
    return folder


def reference_energy(atoms: Atoms) -> float:
    """Return an energy that leaves 1 eV of adsorption energy."""
    return float(atoms.get_potential_energy() - 1.0)


def write_relaxations(
    path: Path, relaxations: Mapping[str, Sequence[Atoms]], *, name: str = "0"
) -> Path:
    """Write a per-adsorbate archive, or the same as a folder if it is not a .tar.

    The reference energy leaves 1 eV for the last frame of every relaxation.
    """
    files = {
        f"{name}/{name}/{system}.extxyz.xz": lzma.compress(as_text(frames).encode())
        for system, frames in relaxations.items()
    }
    lines = [
        f"{system},{reference_energy(frames[-1])}\n"
        for system, frames in relaxations.items()
    ]
    files[f"{name}/system.txt"] = "".join(lines).encode()
    if path.suffix != ".tar":
        for inside, content in files.items():
            (path / inside).parent.mkdir(parents=True, exist_ok=True)
            (path / inside).write_bytes(content)
        return path
    with tarfile.open(path, "w") as archive:
        for inside, content in files.items():
            add_member(archive, inside, content)
    return path


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def record(adsorbate: str = "*O", *, anomaly: int = 0) -> dict[str, Any]:
    """Return what OC20's mapping says about a system; numbers are NumPy's at places."""
    return {
        "bulk_id": 6646,
        "ads_id": 0,
        "bulk_mpid": "mp-126",
        "bulk_symbols": "Pt4",
        "ads_symbols": adsorbate,
        "miller_index": (1, 1, -1),
        "shift": 0.125,
        "top": True,
        "adsorption_site": ((np.float64(1.5), np.float64(0.25), np.float64(12.0)),),
        "class": 0,
        "anomaly": anomaly,
        "split": "train",
    }


def write_mapping(path: Path, systems: Mapping[str, object]) -> Path:
    """Write a mapping as OC20 does."""
    path.write_bytes(pickle.dumps(dict(systems)))
    return path
