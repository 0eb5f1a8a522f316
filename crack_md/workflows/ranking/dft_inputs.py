"""Inputs for DFT of the best slabs of a screening: VASP, Quantum ESPRESSO, GPAW.

Clean slab, slab with each adsorbate on its best site, and the gas molecules that the
adsorption energies are against, relaxed on from where the screening left them. A
folder of results is never written over: what is there stays, new slabs come beside it.

Inputs are made in a folder of their own, listed in the manifest, then moved into place:
a command that was killed is run again, and writes what is missing.

`manifest.json` says which folder is what; `start.traj` in each has the structure, its
fixed atoms and tags, by which results are read back (`dft_results`).
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from crack_md.errors import DataError
from crack_md.files import read_json, write_json, write_text
from crack_md.workflows.orr import gas_molecules
from crack_md.workflows.ranking.dft_codes import Code, header, moments, write_code_input
from crack_md.workflows.ranking.rescore import ADSORBATE_TAG
from crack_md.workflows.relax.batch import file_name_of
from crack_md.workflows.screening.reader import (
    Adsorbed,
    Candidate,
    SavedScreening,
    Structures,
)

Role = Literal["clean", "adsorbed", "gas"]
MANIFEST, START = "manifest.json", "start.traj"
UNFINISHED = ".unfinished"
"""Where inputs lie until all are written; what a killed command left is removed."""
GAS_BOX_A = (12.0, 12.5, 13.0)
"""Of three lengths, so that symmetry does not hold a molecule's electrons."""


@dataclass(frozen=True)
class Calculation:
    """One folder of inputs, and what its energy is for."""

    folder: str
    """Relative to the manifest."""
    role: Role
    name: str
    """Of the slab, or of the molecule."""
    adsorbate: str = ""
    site: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        """Return what makes two calculations the same, wherever they are."""
        return self.role, self.name, self.adsorbate, self.site


class Written(NamedTuple):
    """What was written, and what a reader must know."""

    new: list[Calculation]
    kept: int
    """Calculations that were there before."""
    notes: list[str]


def write_inputs(
    screening: SavedScreening, slabs: Sequence[str], code: Code, folder: Path
) -> Written:
    """Write the inputs of slabs and of the gas molecules they need.

    Args:
        screening: whose relaxed structures are taken.
        slabs: names, best first.
        code: which program.
        folder: where to; folders in it that are there already are left alone.

    Raises:
        DataError: no slab has a stored structure, or the folder cannot be written or
            is of another code.
    """
    listed, structures = read_manifest(folder, code), Structures.of(screening)
    known = {name: each for name, each in listed.items() if (folder / name).is_dir()}
    by_name = {candidate.slab: candidate for candidate in screening.candidates}
    wanted: list[tuple[Calculation, Atoms]] = []
    notes = []
    for name in slabs:
        found = _of_slab(by_name[name], structures)
        wanted += found
        if not found:
            notes.append(f"{name}: results.db does not hold its structure; left out")
        written = {each.adsorbate for each, _ in found}
        notes += [
            f"{name}: results.db does not hold its {lost.adsorbate}*; left out"
            for lost in by_name[name].adsorbed
            if found and lost.adsorbate not in written
        ]
        if any(_other_constraints(atoms) for _, atoms in found):
            notes.append(f"{name}: constraints other than fixed atoms are left out")
    if not wanted:
        raise DataError(f"'{screening.folder}' holds no structure of these slabs")
    gases = sorted({gas for _, atoms in wanted for gas in _gases_of(atoms)})
    wanted += [(Calculation(f"gas/{g}", "gas", g), _gas(g)) for g in gases]
    new = list(_unknown(wanted, known))
    for calculation, _ in new:
        if (folder / calculation.folder).exists():
            raise DataError(
                f"'{folder / calculation.folder}' is there, and {MANIFEST} does not "
                "name it; move it away, so that nothing of yours is overwritten"
            )
    every = {**known, **{calculation.folder: calculation for calculation, _ in new}}
    manifest = {"code": code, "calculations": [asdict(each) for each in every.values()]}
    unfinished = folder / UNFINISHED
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        for calculation, atoms in new:
            path = unfinished / calculation.folder
            path.mkdir(parents=True)
            ready, is_slab = _prepared(atoms, code), calculation.role != "gas"
            write_code_input(code, ready, path, is_slab=is_slab)
            ready.write(path / START)
        write_json(folder / MANIFEST, manifest)
        for calculation, _ in new:
            path = folder / calculation.folder
            path.parent.mkdir(parents=True, exist_ok=True)
            (unfinished / calculation.folder).rename(path)
        if unfinished.exists():
            shutil.rmtree(unfinished)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write '{folder}': {reason}") from error
    write_text(folder / "README.txt", "\n".join(header(code)) + "\n")
    return Written([calculation for calculation, _ in new], len(known), notes)


def _unknown(
    wanted: Sequence[tuple[Calculation, Atoms]], known: Mapping[str, Calculation]
) -> Iterator[tuple[Calculation, Atoms]]:
    """Yield what is not there yet, in folders that nothing else has."""
    there = {calculation.identity for calculation in known.values()}
    taken = set(known)
    for calculation, atoms in wanted:
        if calculation.identity in there:
            continue
        folder, number = calculation.folder, 2
        while folder in taken:
            folder, number = f"{calculation.folder}-{number}", number + 1
        taken.add(folder)
        yield replace(calculation, folder=folder), atoms


def _gases_of(atoms: Atoms) -> set[str]:
    """Return the molecules that the adsorbate's energy is against; none without."""
    adsorbate = atoms.symbols[atoms.get_tags() == ADSORBATE_TAG]
    return set(gas_molecules(Counter(map(str, adsorbate))))


def _other_constraints(atoms: Atoms) -> bool:
    return any(not isinstance(each, FixAtoms) for each in atoms.constraints)


def read_manifest(folder: Path, code: str | None = None) -> dict[str, Calculation]:
    """Return the calculations of a folder; none where there is no manifest.

    Raises:
        DataError: it is damaged, or of another code than the one asked for.
    """
    told = read_json(folder / MANIFEST, may_miss=True)
    if told is None:
        return {}
    try:
        listed = [Calculation(**each) for each in told["calculations"]]
        found = told["code"]
    except (KeyError, TypeError) as error:
        raise DataError(f"'{folder / MANIFEST}' is no list of calculations") from error
    if code not in (None, found):
        raise DataError(f"'{folder}' holds inputs for {found}; move it away")
    return {calculation.folder: calculation for calculation in listed}


def _of_slab(
    candidate: Candidate, structures: Structures
) -> list[tuple[Calculation, Atoms]]:
    """Return the clean slab and its adsorbates; nothing without a stored structure."""
    place = f"{candidate.rank:03d}-{file_name_of(candidate.slab)}"
    found: list[tuple[Calculation, Atoms]] = []
    for adsorbed in candidate.adsorbed:
        covered = structures.adsorbed(candidate, adsorbed)
        if covered is None:
            continue
        if not found:
            clean = _clean(candidate, adsorbed, structures, covered)
            found.append(
                (Calculation(f"{place}/clean", "clean", candidate.slab), clean)
            )
        name, site = adsorbed.adsorbate, adsorbed.site
        key = f"{place}/{name}-{file_name_of(site)}"
        one = Calculation(key, "adsorbed", candidate.slab, name, site)
        found.append((one, covered))
    return found


def _clean(
    candidate: Candidate, adsorbed: Adsorbed, structures: Structures, covered: Atoms
) -> Atoms:
    """Return the relaxed clean slab; without the adsorbate where there is none."""
    clean = structures.clean(candidate, adsorbed)
    if clean is not None:
        return clean
    bare: Atoms = covered[covered.get_tags() != ADSORBATE_TAG]
    return bare


def _gas(name: str) -> Atoms:
    gas: Atoms = molecule(name, cell=GAS_BOX_A, pbc=True)
    gas.center()
    return gas


def _prepared(atoms: Atoms, code: Code) -> Atoms:
    """Return the atoms by element, the adsorbate last, with magnetic moments."""
    tags = atoms.get_tags()
    above = tags == ADSORBATE_TAG
    names = np.where(above, "", np.array(atoms.get_chemical_symbols()))
    order = np.lexsort((np.arange(len(atoms)), names, above))
    chosen = atoms[order]
    ready = Atoms(
        chosen.symbols, chosen.positions, cell=chosen.cell, pbc=True, tags=tags[order]
    )
    held = [c.index for c in chosen.constraints if isinstance(c, FixAtoms)]
    if held:
        ready.set_constraint(FixAtoms(np.unique(np.concatenate(held))))
    given = [moments(code).get(symbol, 0.0) for symbol in ready.symbols]
    if any(given):
        ready.set_initial_magnetic_moments(given)
    return ready
