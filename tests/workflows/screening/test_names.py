"""Names are no identity: whatever they are, every slab keeps its own row."""

from pathlib import Path

import pytest
from ase import Atoms
from ase.build import fcc111
from ase.db import connect

from crack_md.files import csv_bytes, defuse, undefuse
from crack_md.structures import StructureEntry, read_entries, with_unique_names
from crack_md.workflows.relax.store import stored_text
from crack_md.workflows.screening.reader import Structures, read_screening
from tests.workflows.screening.small_screenings import EMT_MODEL, fast, rows, run, slab

HOSTILE = (
    "dup",
    "dup",
    "dup #1",
    "x y",
    "x  y",
    "",
    "  ",
    "=1+1",
    "[/bold]",
    "\x1b[2Jgone",
    "Pt(111) reference",
    "1",
    "slab-1",
    "True",
    "$x^$",
)


def test_names_are_unique_printable_and_folded_once() -> None:
    entries = with_unique_names([StructureEntry(name, None) for name in HOSTILE])
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(HOSTILE)
    assert names[:7] == [
        "dup #2",
        "dup #3",
        "dup #1",
        "x y #1",
        "x y #2",
        "unnamed #1",
        "unnamed #2",
    ]
    assert all(name.isprintable() and name == " ".join(name.split()) for name in names)
    assert "named '\\x1b[2Jgone' in the input" in entries[9].notes
    assert entries[7].notes == ("an apostrophe stands before the name in CSV files",)
    assert with_unique_names(entries) == entries


@pytest.mark.parametrize("text", ["=1+1", "@x", "+a", "-b", "'=1", "''=1"])
def test_cells_are_defused_and_read_back_exactly(text: str) -> None:
    assert defuse(text) == f"'{text}"
    assert undefuse(defuse(text)) == text


@pytest.mark.parametrize("text", ["Pt", "-0.5", "+1e3", "it's", "'a'", ""])
def test_other_cells_stay(text: str) -> None:
    assert defuse(text) == text
    assert undefuse(text) == text


def test_numbers_stay_numbers() -> None:
    assert csv_bytes([{"a": -1.5, "b": "=x"}], decimals=1) == b"a,b\n-1.5,'=x\n"


def test_no_two_names_are_stored_as_one() -> None:
    names = [stored_text(name, "slab") for name in ("1", "slab-1", "slab-slab-1")]
    assert len(set(names)) == 3
    assert stored_text("True", "slab") == "slab-True"  # ASE refuses it


def test_every_slab_keeps_its_row_and_its_structure(tmp_path: Path) -> None:
    metals = ("Cu", "Ag", "Au")
    names = ("dup", "dup", "dup #1", "=1+1", "Pt(111) reference", "1", "slab-1", "True")
    entries = [
        StructureEntry(name, slab(metals[n % 3])) for n, name in enumerate(names)
    ]
    result = run(tmp_path, entries, settings=fast(max_sites=1, fmax=0.3))
    found = rows(tmp_path / "results.csv")
    assert len(found) == len(names)
    screening = read_screening(tmp_path)
    formulas = {row["slab"]: row["formula"] for row in screening.slabs}
    given = zip(with_unique_names(entries), entries, strict=True)
    for unique, entry in given:
        assert isinstance(entry.atoms, Atoms)
        assert formulas[unique.name] == entry.atoms.get_chemical_formula(mode="metal")
    assert result.pt111 is not None
    assert result.pt111.name not in formulas
    structures = Structures.of(screening)
    for candidate in screening.candidates:
        atoms = structures.adsorbed(candidate, candidate.adsorbed[0])
        assert atoms is not None
        assert str(atoms.symbols[0]) == formulas[candidate.slab][:2]


def test_database_pairs_become_name_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "slabs.db"
    with connect(path) as database:
        database.write(
            slab("Cu"), name="mine", facet="fcc111", u_value=3.5, status="ok?"
        )
        database.write(fcc111("Ag", (1, 1, 3), vacuum=8.0), facet="=cmd")
    settings = fast(max_sites=1, fmax=0.3)
    run(tmp_path / "out", read_entries(path), settings=settings, model=EMT_MODEL)
    by_name = {row["slab"]: row for row in rows(tmp_path / "out" / "results.csv")}
    assert set(by_name) == {"mine", "slabs-2"}
    assert (by_name["mine"]["facet"], by_name["mine"]["u_value"]) == (
        "fcc111",
        "3.5000",
    )
    assert by_name["mine"]["input_status"] == "ok?"
    assert by_name["mine"]["status"] == "ok"
    assert by_name["slabs-2"]["facet"] == "'=cmd"
