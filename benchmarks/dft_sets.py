"""Published sets of adsorbates on metals by DFT, as tasks that any calculator can do.

They sit in the folder that CRACK_MD_REFERENCES names (default ../shared): O* and OH*
by GPAW-RPBE on Ag-Pt, Ir-Pd and Pt-Ru random alloys and on twelve pure metals, all of
them fcc(111) 3x3x5 cells; O* by PBE on seven (111) metals and four sites of a p(2x2)
cell (Xu and Kitchin, doi:10.1021/jp508805h).
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
GPAW, PURE, XU_KITCHIN = "gpaw", "pure", "xu_kitchin"
ALLOYS = ("agpt", "irpd", "ptru")
PLATINUM = "Pt(111)"
SITES = {"O": "fcc", "OH": "ontop"}
"""Where GPAW has them."""
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Pair:
    """A covered and a clean slab, and their DFT energy difference in eV.

    That of pure metals is against H2O and H2, not E(covered) − E(clean).
    """

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


def gpaw_pairs(adsorbate: str = "O") -> list[Pair]:
    """Return an adsorbate, O or OH, on Pt(111), then on all alloy slabs."""
    folder, site = references() / "gpaw_orr_alloys", SITES[adsorbate]
    covered = next(connect(folder / f"3x3x5_pt111_{site}_{adsorbate}.db").select())
    clean = next(connect(folder / "3x3x5_pt111_slab.db").select())
    platinum = Pair(
        GPAW,
        PLATINUM,
        site,
        _periodic(covered.toatoms()),
        _periodic(clean.toatoms()),
        PLATINUM,
        covered.energy - clean.energy,
    )
    alloys = [
        pair
        for name in ALLOYS
        for pair in _alloy_pairs(folder / f"{name}.db", adsorbate)
    ]
    return [platinum, *alloys]


def _alloy_pairs(path: Path, adsorbate: str) -> Iterator[Pair]:
    rows = list(connect(path).select())
    clean = {row.slabId: row for row in rows if row.ads == "N/A"}
    for row in rows:
        if row.ads != adsorbate or row.slabId not in clean:
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


def pure_metal_pairs(adsorbate: str = "O") -> list[Pair]:
    """Return an adsorbate, O or OH, on Pt(111), then on the other pure metals.

    All are fcc(111), hcp metals too. The set has no clean slabs: they are the covered
    ones without the adsorbate, to be relaxed.
    """
    path = references() / "gpaw_hea_relaxations" / "pure_refs.db"
    pairs = []
    for row in connect(path).select(ads=adsorbate):
        covered = _periodic(row.toatoms())
        name = f"{row.element}(111)"
        clean = covered[[atom.symbol == row.element for atom in covered]]
        site = SITES[adsorbate]
        pairs.append(Pair(PURE, name, site, covered, clean, name, row.e))
    return sorted(pairs, key=lambda pair: (pair.name != PLATINUM, pair.name))


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
