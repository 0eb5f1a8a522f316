"""``make_surfaces``: slabs of alloys for a screening, as ``crack-md surfaces`` does."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from crack_md.api.inputs import build_settings, describe_calculator
from crack_md.errors import ConfigError
from crack_md.progress import Report
from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.surfaces.build import (
    BuildSettings,
    build_surfaces,
    check_target,
    write_surfaces,
)
from crack_md.workflows.surfaces.crystals import Crystal, alloy_crystals, read_crystals
from crack_md.workflows.surfaces.cut import parse_planes

Names = str | Iterable[str]


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Slabs that were made, and what could not be."""

    entries: tuple[StructureEntry, ...]
    path: Path | None
    """The database that holds the slabs."""

    @property
    def slabs(self) -> list[Atoms]:
        """Return the slabs, each with its name and columns in ``info``."""
        named = []
        for entry in self.entries:
            if entry.atoms is not None:
                slab = entry.atoms.copy()
                slab.info = {"name": entry.name, **entry.columns}
                named.append(slab)
        return named

    @property
    def failed(self) -> dict[str, str]:
        """Return why there is no slab, by name."""
        return {each.name: each.error for each in self.entries if each.atoms is None}


def make_surfaces(
    calculator: BaseCalculator,
    *,
    elements: Names = (),
    structures: Names = ("L12", "L10", "random", "skin"),
    compositions: Names = (),
    bulks: str | Path | None = None,
    miller: str = "111",
    out: str | Path | None = None,
    model: ModelInfo | None = None,
    report: Report | None = None,
    **options: Any,
) -> Surfaces:
    """Return slabs of alloys at the lattice constant that a model itself has.

    Args:
        calculator: relaxes the bulks; any ASE calculator, such as `CrackCalculator`.
        elements: symbols of metals: every pair makes ordered alloys, all of them
            together a random one.
        structures: some of pure, L12, L10, random, skin.
        compositions: of random alloys, such as ``Pt3Ni``.
        bulks: a file or folder of further crystals; CIF with partial occupancies too.
        miller: planes, such as ``111,100``.
        out: an ASE database to write, which `screen` reads as it is.
        model: what the calculator is; asked of it where left out.
        report: called with a `ProgressEvent` after every crystal.
        options: fields of `BuildSettings`: ``random_slabs``, ``seed``,
            ``thickness_A``, ``vacuum_A``, ``width_A`` ...

    Raises:
        ConfigError: an option is unknown, nothing is asked for, or ``out`` is there.
        DataError: ``bulks`` cannot be read, or ``out`` cannot be written.
    """
    options["planes"] = parse_planes(miller)
    settings: BuildSettings = build_settings(BuildSettings, options, "make_surfaces")
    path = None if out is None else Path(out)
    if path is not None:
        check_target(path)
    crystals = choose_crystals(elements, structures, compositions, bulks)
    entries = build_surfaces(
        crystals,
        calculator,
        model=model or describe_calculator(calculator),
        settings=settings,
        report=report,
    )
    if path is not None and any(entry.atoms is not None for entry in entries):
        write_surfaces(entries, path)
    return Surfaces(entries, path)


def choose_crystals(
    elements: Names, structures: Names, compositions: Names, bulks: str | Path | None
) -> tuple[Crystal | StructureEntry, ...]:
    """Return the crystals that words ask for, those of a file last.

    Raises:
        ConfigError: they ask for nothing, or for what there is not.
        DataError: the file cannot be read.
    """
    found: list[Crystal | StructureEntry] = []
    if named := _listed(elements):
        chosen, mixtures = _listed(structures), _listed(compositions)
        found += alloy_crystals(named, chosen, compositions=mixtures)
    if bulks is not None:
        found += read_crystals(Path(bulks))
    if not found:
        raise ConfigError("nothing to make: give elements, or a file of bulk crystals")
    return tuple(found)


def _listed(names: Names) -> list[str]:
    split = names.split(",") if isinstance(names, str) else names
    return [name.strip() for name in split if name.strip()]
