"""Published DFT energies at hand, as files that ``crack-md score`` and CatBench read.

    python benchmarks/catbench_sets.py FOLDER
    crack-md score FOLDER/gpaw_alloys_adsorption.json

O* and OH* by GPAW-RPBE on random alloys of Ag, Ir, Pd, Pt and Ru and on twelve pure
metals, against H2O and H2; O* by PBE on seven metals and four sites, against an oxygen
atom (Xu and Kitchin, doi:10.1021/jp508805h). Structures are where DFT ended, as in the
sets of CatBench. The folder that CRACK_MD_REFERENCES names holds the data.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from benchmarks.dft_sets import Pair, pure_metal_pairs, references, xu_kitchin_pairs
from crack_md.workflows.scoring.reactions import Reaction, write_reactions

AGAINST = {"O": {"H2O": -1.0, "H2": 1.0}, "OH": {"H2O": -1.0, "H2": 0.5}}
SITES = {"fcc_O": "O", "ontop_OH": "OH"}
BOX_A = 12.0


def alloy_reactions() -> Iterator[Reaction]:
    """Yield O* and OH* on three slabs of five metals, nine sites each."""
    folder = references() / "gpaw_hea_relaxations"
    gases = {name: _last(folder / f"{name.lower()}.traj") for name in ("H2O", "H2")}
    for path in sorted((folder / "traj_history").glob("agirpdptru_*_*_*_*.traj")):
        slab_name, site, adsorbate, number = path.stem.rsplit("_", 3)
        kind = SITES[f"{site}_{adsorbate}"]
        covered = _last(path)
        clean = _last(path.with_name(f"{slab_name}_slab.traj"))
        dft = covered.get_potential_energy() - clean.get_potential_energy()
        for gas, count in AGAINST[kind].items():
            dft += count * gases[gas].get_potential_energy()
        yield _reaction(f"{slab_name}-{number}", kind, clean, covered, gases, dft)


def pure_reactions() -> Iterator[Reaction]:
    """Yield O* and OH* on twelve pure metals."""
    folder = references() / "gpaw_hea_relaxations"
    gases = {name: _last(folder / f"{name.lower()}.traj") for name in ("H2O", "H2")}
    for kind in ("O", "OH"):
        for pair in pure_metal_pairs(kind):
            yield _of_pair(pair, kind, gases)


def site_reactions() -> Iterator[Reaction]:
    """Yield O* on four sites of seven metals, against an oxygen atom."""
    atom = Atoms("O", cell=[BOX_A, BOX_A + 0.5, BOX_A + 1.0], pbc=True)
    atom.center()
    for pair in xu_kitchin_pairs():
        yield replace(
            _of_pair(pair, "O", {"O": atom}),
            stoichiometry={"clean": -1.0, "covered": 1.0, "O": -1.0},
        )


def _of_pair(pair: Pair, kind: str, gases: dict[str, Atoms]) -> Reaction:
    name = f"{pair.name}-{pair.site}"
    return _reaction(name, kind, pair.clean, pair.covered, gases, pair.dft)


def _reaction(
    name: str,
    kind: str,
    clean: Atoms,
    covered: Atoms,
    gases: dict[str, Atoms],
    dft: float,
) -> Reaction:
    counts = {"clean": -1.0, "covered": 1.0, **AGAINST[kind]}
    light = np.flatnonzero(np.isin(covered.numbers, [1, 8]))
    bare, full = clean.copy(), covered.copy()
    for atoms in (bare, full):
        atoms.pbc = True
    boxed = {
        gas: Atoms(a.symbols, a.positions, cell=a.cell, pbc=True)
        for gas, a in gases.items()
    }
    where = tuple(light.tolist())
    return Reaction(f"{name}-{kind}", kind, bare, full, where, boxed, counts, dft)


def _last(path: Path) -> Atoms:
    atoms = ase.io.read(path, index=-1)
    assert isinstance(atoms, Atoms)
    return atoms


SETS = {
    "gpaw_alloys": alloy_reactions,
    "gpaw_metals": pure_reactions,
    "pbe_sites": site_reactions,
}


def main(folder: Path) -> None:
    """Write all sets."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in SETS.items():
        reactions = {reaction.name: reaction for reaction in make()}
        path = folder / f"{name}_adsorption.json"
        write_reactions(reactions, path)
        print(f"{path}: {len(reactions)} reactions")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
