"""Two published sets of O* on metals by DFT, as tasks that any calculator can do.

Both sit in the folder that CRACK_MD_REFERENCES names (default ../shared): GPAW-RPBE on
Ag-Pt, Ir-Pd and Pt-Ru random alloys (3x3x5), and PBE on seven (111) metals and four
sites of a p(2x2) cell (Xu and Kitchin, doi:10.1021/jp508805h).
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixedLine
from ase.db import connect

FMAX, STEPS = 0.03, 200
GPAW, XU_KITCHIN = "gpaw", "xu_kitchin"
ALLOYS = ("agpt", "irpd", "ptru")
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Pair:
    """An oxygen-covered and a clean slab, and their DFT energy difference in eV."""

    collection: str
    name: str
    site: str
    covered: Atoms
    clean: Atoms
    clean_name: str
    dft: float

    @property
    def key(self) -> Key:
        """Return the names of collection, slab and site."""
        return self.collection, self.name, self.site


def references() -> Path:
    """Return the folder of reference data."""
    default = Path(__file__).resolve().parents[2] / "shared"
    return Path(os.environ.get("CRACK_MD_REFERENCES", default)) / "data"


def only_of(known: frozenset[str] | None, pairs: list[Pair]) -> list[Pair]:
    """Return the pairs that a model with these elements can be asked about."""
    if known is None:
        return pairs
    return [pair for pair in pairs if set(pair.covered.symbols) <= known]


def sample(pairs: list[Pair], *, limit: int | None, seed: int) -> list[Pair]:
    """Return the first pair, which is Pt(111), and ``limit`` others by chance."""
    if limit is None or limit >= len(pairs) - 1:
        return pairs
    chosen = np.random.default_rng(seed).choice(len(pairs) - 1, limit, replace=False)
    return [pairs[0], *(pairs[1 + index] for index in sorted(chosen))]


def gpaw_pairs() -> list[Pair]:
    """Return O* on Pt(111), then on all alloy slabs."""
    folder = references() / "gpaw_orr_alloys"
    covered = next(connect(folder / "3x3x5_pt111_fcc_O.db").select())
    clean = next(connect(folder / "3x3x5_pt111_slab.db").select())
    platinum = Pair(
        GPAW,
        "Pt(111)",
        "fcc",
        _periodic(covered.toatoms()),
        _periodic(clean.toatoms()),
        "Pt(111)",
        covered.energy - clean.energy,
    )
    alloys = [pair for name in ALLOYS for pair in _alloy_pairs(folder / f"{name}.db")]
    return [platinum, *alloys]


def _alloy_pairs(path: Path) -> Iterator[Pair]:
    rows = list(connect(path).select())
    clean = {row.slabId: row for row in rows if row.ads == "N/A"}
    for row in rows:
        if row.ads != "O" or row.slabId not in clean:
            continue
        slab = clean[row.slabId]
        yield Pair(
            GPAW,
            f"{path.stem}-{row.id}",
            row.site,
            _periodic(row.toatoms()),
            _periodic(slab.toatoms()),
            f"{path.stem}-{slab.id}",
            row.energy - slab.energy,
        )


def xu_kitchin_pairs() -> list[Pair]:
    """Return O on fcc, hcp, bridge and ontop of seven metals, a quarter monolayer."""
    folder = references() / "xu_kitchin_111"
    energies = json.loads((folder / "energies.json").read_text())
    structures = json.loads((folder / "structures.json").read_text())
    pairs = []
    for metal, adsorbates in energies.items():
        for site, by_coverage in adsorbates["O"].items():
            stored = structures[metal]["O"][site]["0.25"]
            covered = Atoms(
                stored["symbols"],
                positions=stored["pos"],
                cell=stored["cell"],
                pbc=True,
            )
            oxygen = int(np.flatnonzero(covered.symbols == "O")[0])
            below = np.argsort(covered.positions[:, 2])[:8]
            # As in DFT, O may rise and sink but not slide off a bridge.
            covered.set_constraint(
                [FixAtoms(below), FixedLine([oxygen], direction=[0, 0, 1])]
            )
            clean = covered[[i for i in range(len(covered)) if i != oxygen]]
            clean.set_constraint(FixAtoms(np.argsort(clean.positions[:, 2])[:8]))
            dft = by_coverage["0.25"]
            pairs.append(Pair(XU_KITCHIN, metal, site, covered, clean, metal, dft))
    return pairs


def _periodic(atoms: Atoms) -> Atoms:
    atoms.calc = None
    atoms.pbc = True
    return atoms
