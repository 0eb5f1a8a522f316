"""What functions take: structures from files or from memory, settings by keyword."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from crack_md.errors import ConfigError, DataError
from crack_md.structures import (
    Frames,
    StructureEntry,
    input_sha256,
    read_entries,
    with_unique_names,
)
from crack_md.workflows.surfaces.slab import check_structure

Structures = str | Path | Atoms | Sequence[Atoms]
"""What functions take: a file or folder, one structure, or several."""


def as_entries(
    structures: Structures, select: str | None = None, frames: Frames = "all"
) -> tuple[StructureEntry, ...]:
    """Return the structures of a file or folder, or those given, under their names.

    Raises:
        DataError: the file holds none, or none are given.
        ConfigError: ``select`` is for databases.
    """
    if isinstance(structures, str | Path):
        return read_entries(Path(structures), select=select, frames=frames)
    if select is not None:
        raise ConfigError(f"select='{select}' is for databases, and structures came")
    listed = [structures] if isinstance(structures, Atoms) else list(structures)
    if not listed:
        raise DataError("no structures given; expected at least one")
    return with_unique_names(
        [
            StructureEntry(
                str(atoms.info.get("name") or atoms.get_chemical_formula(mode="metal")),
                atoms,
            )
            for atoms in listed
        ]
    )


def as_atoms(structure: str | Path | Atoms, index: int = -1) -> Atoms:
    """Return one structure, checked for what no model could be asked about.

    Args:
        structure: `ase.Atoms`, or a file.
        index: which structure of a file, from 0; −1 is the last.

    Raises:
        ConfigError: the file has fewer structures.
        DataError: it cannot be read.
        StructureError: the structure is broken.
    """
    if isinstance(structure, Atoms):
        check_structure(structure)
        return structure
    entries = read_entries(Path(structure))
    try:
        entry = entries[index]
    except IndexError:
        raise ConfigError(
            f"--index is {index}, and '{structure}' has {len(entries)} structures"
        ) from None
    if entry.atoms is None:
        raise ConfigError(
            f"'{structure}': {entry.error}; choose another one with --index"
        )
    check_structure(entry.atoms)
    return entry.atoms


def build_settings(kind: type[Any], options: Mapping[str, Any], command: str) -> Any:
    """Return a settings object from keywords.

    Raises:
        ConfigError: it has no setting of that name, or refuses a value.
    """
    known = list(kind.__dataclass_fields__)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(
            f"{command}() has no option {', '.join(unknown)}; it has: "
            f"{', '.join(known)}"
        )
    return kind(**options)


def describe_input(structures: Structures, count: int) -> dict[str, Any]:
    """Return what summary.json says about the input: where from, which, how many."""
    if not isinstance(structures, str | Path):
        return {"path": None, "sha256": None, "structures": count}
    path = Path(structures)
    return {"path": str(path), "sha256": input_sha256(path), "structures": count}
