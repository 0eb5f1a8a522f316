"""A screening with stability: EMT relaxes the variants of a slab."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT

from crack_md.plots.orr import draw_volcano
from crack_md.progress import ProgressEvent
from crack_md.structures import StructureEntry
from crack_md.workflows.orr import orr_diagram
from crack_md.workflows.screening.results import ScreenResult, dissolves_first
from crack_md.workflows.screening.stability import known_metals
from crack_md.workflows.stability.metals import relax_metal
from crack_md.workflows.stability.stability import SlabVariants
from tests.workflows.screening.small_screenings import NO_PLATINUM, fast, rows, run


def gold_on_copper() -> Atoms:
    """Return Cu(111), one of the two atoms of its surface gold."""
    atoms = fcc111("Cu", (2, 1, 4), vacuum=8.0)
    atoms.numbers[6] = 79
    return atoms


def screened(folder: Path, **options: object) -> ScreenResult:
    entries = [StructureEntry("AuCu", gold_on_copper())]
    return run(folder, entries, model=NO_PLATINUM, settings=fast("O", **options))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScreenResult]:
    folder = tmp_path_factory.mktemp("stability")
    return folder, screened(folder, stability=True)


def test_numbers_are_those_of_the_relaxations(both: tuple[Path, ScreenResult]) -> None:
    """Copper up costs what the swapped slab has more; gold is not beneath."""
    _, result = both
    (slab,), found = result.slabs, result.stability["AuCu"]
    gold, copper = found.atoms
    assert (gold.element, gold.segregation_eV) == ("Au", None)
    assert copper.segregation_eV is not None
    assert copper.segregation_eV > 0.2  # gold is larger, and stays up
    assert copper.dissolution_V is not None
    assert gold.dissolution_V is not None
    assert copper.dissolution_V < gold.dissolution_V
    assert dissolves_first(slab, result).element == "Cu"
    assert found.formation_eV is not None
    assert relax_metal("Cu", EMT()).neighbor_A == pytest.approx(2.54, abs=0.02)


def test_tables_hold_it(both: tuple[Path, ScreenResult]) -> None:
    folder, result = both
    gold, copper = rows(folder / "stability.csv")
    assert (gold["element"], gold["standard_potential_V"]) == ("Au", "1.4980")
    assert gold["segregation_eV"] == ""
    (row,) = rows(folder / "results.csv")
    assert row["segregation_element"] == "Cu"
    for column in ("segregation_eV", "segregation_with_O_eV", "dissolution_V"):
        assert row[column] == copper[column] != ""
    expected = float(copper["dissolution_V"]) < float(row["U_L_V"])
    assert row["dissolves_below_U_L"] == str(expected)
    assert [s.record.adsorbate for s in result.slabs[0].sites] == ["O"] * row_count(row)


def row_count(row: dict[str, str]) -> int:
    return int(row["n_sites"])


def test_goes_on_and_leaves_a_plain_screening_alone(
    both: tuple[Path, ScreenResult], tmp_path: Path
) -> None:
    folder, result = both
    again = screened(folder, stability=True)
    done = result.n_relaxed + result.n_reused  # what was swapped, bare and covered
    assert (again.n_relaxed, again.n_reused) == (0, done)
    (tmp_path / "stability.csv").write_text("of other slabs")
    screened(tmp_path)
    (plain,), (full,) = rows(tmp_path / "results.csv"), rows(folder / "results.csv")
    assert {key: full[key] for key in plain} == plain
    assert not (tmp_path / "stability.csv").exists()


def test_progress_counts_in_parts_whose_totals_stay(
    both: tuple[Path, ScreenResult], tmp_path: Path
) -> None:
    """The slab and its sites, its variants, then sites of the swapped surface."""
    folder, result = both
    (tmp_path / "results.db").write_bytes((folder / "results.db").read_bytes())
    events: list[ProgressEvent] = []
    entries = [StructureEntry("AuCu", gold_on_copper())]
    settings = fast("O", stability=True)
    run(tmp_path, entries, model=NO_PLATINUM, settings=settings, events=events)
    starts = [place for place, event in enumerate(events) if event.done == 1]
    assert len(starts) == 3
    for first, end in pairwise([*starts, len(events)]):
        part = events[first:end]
        assert [(e.done, e.total) for e in part] == [
            (n, len(part)) for n in range(1, len(part) + 1)
        ]
    assert starts[1] == 1 + len(result.slabs[0].sites)


def test_volcano_marks_what_dissolves(both: tuple[Path, ScreenResult]) -> None:
    """Copper leaves at 0.46 V: below a limiting potential of 0.8 V, above 0.2 V."""
    _, result = both
    for limit, rims in ((0.8, 1), (0.2, 0)):
        diagram = orr_diagram({"O": 2 * limit})
        slab = replace(
            result.slabs[0], limiting_potential=limit, diagram=diagram, rank=1
        )
        axes = draw_volcano(replace(result, slabs=(slab,))).axes[0]
        found = [part for part in axes.collections if part.get_gid() == "dissolving"]
        assert len(found) == rims


def test_slab_without_variants_is_a_note(
    both: tuple[Path, ScreenResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = both

    def fail(slab: object) -> None:
        raise IndexError("no such atom")

    monkeypatch.setattr(SlabVariants, "all", property(fail))
    result = screened(folder, stability=True)
    (row,) = rows(folder / "results.csv")
    assert row["stability_notes"] == "IndexError: no such atom"
    assert row["U_L_V"]
    assert result.stability["AuCu"].atoms == ()


def test_a_metal_that_does_not_relax_says_why(caplog: pytest.LogCaptureFixture) -> None:
    found = known_metals(["Pt", "Ti"], EMT(), lambda atoms: (0.5, ""))
    assert found["Pt"] is not None
    assert found["Ti"] is None
    assert "bulk Ti cannot be relaxed: " in caplog.text
