"""Slabs of crystals at the lattice constant that the model itself has.

Each crystal starts at Vegard's mean (or as its file has it), relaxes as a bulk, and is
cut; atoms are drawn for shared sites of the slab, not of the bulk, so that its layers
are as random as the rest. An adsorption-energy model says nothing about a bulk: slabs
then keep Vegard's constant, and say so.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.db import connect

from crack_md.errors import ConfigError, CrackError, DataError, StructureError
from crack_md.files import atomic_path
from crack_md.progress import ProgressEvent, Report
from crack_md.structures import StructureEntry, with_unique_names
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.relax import (
    RelaxSettings,
    relax_atoms,
    relax_fcc_constant,
)
from crack_md.workflows.relax.store import stored_text
from crack_md.workflows.surfaces.crystals import Crystal, fcc_constant
from crack_md.workflows.surfaces.cut import CutSettings, Plane, cut_entries
from crack_md.workflows.surfaces.slab import check_structure, vacuum_axes
from crack_md.workflows.surfaces.surface_atoms import exposed_atoms

DRAWN_ATOMS = 32
"""At least so many stand for a random alloy when its bulk relaxes."""
BULK_FMAX = 0.01
"""eV/Å, on atoms and on the strain."""
ORDERED_WIDTH_A, RANDOM_WIDTH_A = 4.9, 7.3
"""p(2x2) and p(3x3) on fcc(111), from Ni on."""


@dataclass(frozen=True)
class BuildSettings:
    """Which slabs to make of every crystal."""

    planes: tuple[Plane, ...]
    random_slabs: int = 1
    """Of every crystal with shared sites."""
    seed: int = 0
    all_terminations: bool = False
    thickness_A: float = 6.0
    vacuum_A: float = 15.0
    width_A: float | None = None
    """None: 4.9 Å for ordered crystals, 7.3 Å for those with shared sites."""

    def cut(self, crystal: Crystal) -> CutSettings:
        """Return how the crystal is cut."""
        width = RANDOM_WIDTH_A if crystal.sites else ORDERED_WIDTH_A
        return CutSettings(
            self.planes,
            self.all_terminations,
            self.thickness_A,
            self.vacuum_A,
            self.width_A or width,
        )


@dataclass(frozen=True, eq=False)
class RelaxedBulk:
    """The cell of a crystal as the model has it."""

    atoms: Atoms
    """With placeholders on shared sites."""
    source: str
    """Where the lattice constant comes from, in words."""

    @property
    def edge(self) -> float:
        """Return the edge in Å of an fcc cube with this volume per atom."""
        return float((4 * self.atoms.get_volume() / len(self.atoms)) ** (1 / 3))


def build_surfaces(
    crystals: Sequence[Crystal | StructureEntry],
    calculator: BaseCalculator,
    *,
    model: ModelInfo,
    settings: BuildSettings,
    report: Report | None = None,
) -> tuple[StructureEntry, ...]:
    """Return the slabs of all crystals; what cannot be made says why.

    Args:
        crystals: what to cut.
        calculator: relaxes the bulks.
        model: what it is.
        settings: planes, sizes, seed.
        report: called after every crystal.
    """
    found: list[StructureEntry] = []
    for done, crystal in enumerate(crystals, start=1):
        if isinstance(crystal, StructureEntry):
            found.append(crystal)
            continue
        try:
            found += _slabs(crystal, calculator, model, settings)
        except (CrackError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())[:300] or type(error).__name__
            found.append(StructureEntry(crystal.name, None, text, "not_built"))
        if report is not None:
            report(ProgressEvent(done, len(crystals), crystal.name))
    return with_unique_names(found)


def _slabs(
    crystal: Crystal,
    calculator: BaseCalculator,
    model: ModelInfo,
    settings: BuildSettings,
) -> Iterator[StructureEntry]:
    if refusal := model.refusal(crystal.elements):
        raise StructureError(refusal)
    check_structure(crystal.atoms)
    if vacuum_axes(crystal.atoms):
        raise StructureError("open along a cell vector: slabs are cut from bulks")
    bulk = relax_bulk(crystal, calculator, model, seed=settings.seed)
    entry = StructureEntry(crystal.name.removesuffix("-1"), bulk.atoms)
    for cut in cut_entries([entry], settings.cut(crystal)):
        if cut.atoms is None:
            yield cut
            continue
        facet = "(" + cut.name.rpartition("(")[2].partition(")")[0] + ")"
        columns = {
            "structure": crystal.structure,
            "bulk": crystal.name.removesuffix("-1"),
            "facet": facet,
            "lattice_constant_A": round(bulk.edge, 4),
            "bulk_by": f"{Path(model.name).name}: {bulk.source}",
        }
        for slab in _variants(crystal, cut, settings):
            yield replace(slab, columns={**columns, **slab.columns})


def _variants(
    crystal: Crystal, cut: StructureEntry, settings: BuildSettings
) -> Iterator[StructureEntry]:
    """Yield a slab for every skin, or for every draw of its shared sites."""
    assert cut.atoms is not None
    kind = "" if crystal.structure in ("pure", "bulk") else f" {crystal.structure}"
    if crystal.sites:
        for number in range(settings.random_slabs):
            seed = settings.seed + number
            drawn = crystal.draw(cut.atoms, np.random.default_rng(seed))
            name = _shown(crystal, f"{cut.name}{kind} {number + 1}")
            yield replace(cut, name=name, atoms=drawn, columns={"seed": seed})
        return
    for top in crystal.tops:
        if top is None:
            yield replace(cut, name=f"{cut.name}{kind}")
            continue
        covered = cut.atoms.copy()
        covered.symbols[exposed_atoms(covered)] = top
        skin = {"structure": "skin", "skin": top}
        yield replace(cut, name=f"{cut.name} {top} skin", atoms=covered, columns=skin)


def _shown(crystal: Crystal, name: str) -> str:
    """Return a name with elements where it has placeholders: of a termination."""
    head, facet, side = name.partition(")")
    for placeholder, shares in crystal.sites.items():
        mixture = f"({'/'.join(shares)})"
        side = re.sub(rf"{placeholder}(?![a-z])", mixture, side)
    return head + facet + side


def relax_bulk(
    crystal: Crystal, calculator: BaseCalculator, model: ModelInfo, *, seed: int = 0
) -> RelaxedBulk:
    """Return the cell with the lattice constant of the model.

    Crystals with shared sites, and cubic ones, keep the shape of the cell; the others
    relax it at their symmetry. A model without stress gives Vegard's mean of its own
    fcc metals; an adsorption-energy model gives no bulk at all.

    Raises:
        StructureError: the bulk does not come to rest.
    """
    bare = Atoms(
        crystal.atoms.symbols,
        crystal.atoms.positions,
        cell=crystal.atoms.cell,
        pbc=crystal.atoms.pbc,
    )
    if model.energy_reference != "total":
        mean = "Vegard's mean of measured metals"
        kept = "as the file has it" if crystal.is_from_file else mean
        return RelaxedBulk(bare, f"{kept}, for this model gives no energy of a bulk")
    if "stress" not in calculator.implemented_properties:
        return _vegard_of_model(crystal, bare, calculator)
    small, size = bare, 1
    if crystal.sites:
        size = int(np.ceil((DRAWN_ATOMS / len(bare)) ** (1 / 3) - 1e-9))
        small = crystal.draw(bare.repeat(size), np.random.default_rng(seed))
    done = relax_atoms(
        small,
        calculator,
        settings=RelaxSettings(
            fmax=BULK_FMAX,
            cell="isotropic" if crystal.is_cubic else "full",
            symmetry=not crystal.sites,
        ),
    )
    if not done.converged:
        raise StructureError(
            f"the bulk has not come to rest after {done.n_steps} steps "
            f"({done.max_force:.2f} eV/Å); the model may not know such a crystal"
        )
    if not crystal.sites:
        return RelaxedBulk(done.atoms, "relaxed bulk")
    scale = (done.atoms.get_volume() / small.get_volume()) ** (1 / 3)
    bare.set_cell(bare.cell * scale, scale_atoms=True)
    return RelaxedBulk(bare, f"relaxed bulk of {len(small)} atoms, seed {seed}")


def _vegard_of_model(
    crystal: Crystal, bare: Atoms, calculator: BaseCalculator
) -> RelaxedBulk:
    """Return the cell at the mean of the model's own fcc constants, by energies."""
    placed = [crystal.sites.get(symbol, {symbol: 1.0}) for symbol in bare.symbols]
    symbols = {symbol for shares in placed for symbol in shares}
    shares = {
        s: sum(each.get(s, 0.0) for each in placed) / len(placed) for s in symbols
    }
    own = {symbol: relax_fcc_constant(symbol, calculator) for symbol in symbols}
    scale = sum(shares[s] * own[s] for s in symbols) / fcc_constant(shares)
    bare.set_cell(bare.cell * scale, scale_atoms=True)
    return RelaxedBulk(bare, "Vegard's mean of its own fcc metals: it has no stress")


def write_surfaces(entries: Sequence[StructureEntry], path: Path) -> int:
    """Write the slabs into an ASE database, names and columns filled; return how many.

    Raises:
        ConfigError: the file is there already, or is not called ``.db``.
        DataError: it cannot be written.
    """
    check_target(path)
    slabs = [entry for entry in entries if entry.atoms is not None]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, connect(temporary, type="db") as database:
            for entry in slabs:
                shown = {"name": entry.name, **entry.columns}
                shown |= {"cut": "; ".join(entry.notes)} if entry.notes else {}
                texts = {
                    k: stored_text(v, k) for k, v in shown.items() if type(v) is str
                }
                database.write(entry.atoms, **{**shown, **texts})
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"cannot write '{path}': {error}") from error
    return len(slabs)


def check_target(path: Path) -> None:
    """Refuse a file that is there, or is no database.

    Raises:
        ConfigError: it is one of these.
    """
    if path.suffix != ".db":
        raise ConfigError(f"--out '{path}': expected an ASE database, such as slabs.db")
    if path.exists():
        raise ConfigError(f"'{path}' is there already; remove it or name another --out")
