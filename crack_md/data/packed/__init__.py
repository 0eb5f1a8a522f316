"""Labelled sets small enough to be committed: labels without features, compressed.

    FOLDER/packed.json       what the set is, its rounding, its parts and their hashes
    FOLDER/part-000.npz …    some thousand structures each, as `columns` lays them out

Positions are rounded to 1e-5 Å and forces to 1e-4 eV/Å; energies and cells stay as they
are. Any part opens with `numpy.load(allow_pickle=False)`. Commands that take a dataset
take the folder; `crack-md label FOLDER --only-features --teacher …` adds a teacher's
features again and leaves the energies and forces alone.
"""

from pathlib import Path

MANIFEST = "packed.json"


def manifest_of(path: Path) -> Path | None:
    """Return the manifest of a packed set, given it or its folder; None for others."""
    if path.name == MANIFEST:
        return path
    inside = path / MANIFEST
    return inside if inside.is_file() else None
