"""Every input of a verdict is in the key: neither tags nor order change a row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111

from crack_md.structures import StructureEntry
from crack_md.workflows.relax.store import relaxation_key
from crack_md.workflows.surfaces.slab import prepare_slab
from tests.workflows.screening.small_screenings import NO_PLATINUM, fast, rows, run


def with_dopant(*, tagged: bool) -> Atoms:
    slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    slab.pbc = True
    slab.set_tags(0)
    slab.symbols[8] = "Ag"
    if tagged:
        tags = np.zeros(len(slab), dtype=int)
        tags[8] = 1
        slab.set_tags(tags)
    return slab


def test_a_tagged_dopant_is_no_surface_of_one_atom() -> None:
    slab = prepare_slab(with_dopant(tagged=True))
    assert slab.atoms.get_tags().tolist() == [0] * 8 + [1] * 4
    assert "tags were not OC20's: 4 surface atoms found" in slab.preparation


@pytest.mark.parametrize("first", [True, False])
def test_tags_and_order_of_slabs_change_nothing(tmp_path: Path, first: bool) -> None:
    entries = [
        StructureEntry("tagged" if tagged else "plain", with_dopant(tagged=tagged))
        for tagged in (first, not first)
    ]
    run(tmp_path, entries, model=NO_PLATINUM, settings=fast(max_sites=3, fmax=0.3))
    by_slab: dict[str, list[tuple[str, str]]] = {}
    for row in rows(tmp_path / "sites.csv"):
        by_slab.setdefault(row["slab"], []).append((row["site"], row["anomalies"]))
    assert by_slab["tagged"] == by_slab["plain"]
    assert not any("intercalated" in found for _, found in by_slab["tagged"])


def change(atoms: Atoms, what: str) -> Atoms:
    if what == "tags":
        atoms.set_tags([0] * 8 + [1] * 4)
    elif what == "pbc":
        atoms.pbc = (True, True, False)
    elif what == "magmoms":
        atoms.set_initial_magnetic_moments([1.0] * 12)
    elif what == "charge":
        atoms.info["charge"] = 1
    return atoms


@pytest.mark.parametrize("what", ["tags", "pbc", "magmoms", "charge"])
def test_key_knows_what_decides_energies_and_verdicts(what: str) -> None:
    conditions: dict[str, Any] = {"fmax": 0.03}
    plain = relaxation_key(with_dopant(tagged=False), "O on fcc", conditions)
    changed = change(with_dopant(tagged=False), what)
    assert relaxation_key(changed, "O on fcc", conditions) != plain
    named = with_dopant(tagged=False)
    named.info["name"] = "another name"
    assert relaxation_key(named, "O on fcc", conditions) == plain
