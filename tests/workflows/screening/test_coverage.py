"""O* at higher coverages: closed forms of a model whose O* interact in pairs only."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list

from crack_md.errors import ConfigError
from crack_md.models.limits import Limits
from crack_md.progress import ProgressEvent
from crack_md.structures import StructureEntry
from crack_md.workflows.screening.coverage import (
    NEIGHBOR_A,
    Hollows,
    parse_coverages,
    why_not,
)
from crack_md.workflows.screening.plan import ScreenSettings, plan_slab
from crack_md.workflows.screening.results import CoveredSlab, ScreenResult
from tests.workflows.screening.small_screenings import NO_PLATINUM, fast, rows, run

PAIR_EV = 0.07
FCC_EV, HCP_EV, BRIDGE_EV, TOP_EV = -2.0, -1.9, -1.5, -1.0
GAS_EV = 0.0 - 1.5
"""H2O - H2 of the model."""
SPACING_A = 2.55
"""Of the atoms of Cu(111) at ASE's lattice constant, 3.61 Å."""


class PairAdditive(Calculator):
    """Flat sites of oxygen and a constant for every pair of neighbors; no forces.

    Pairs are counted up to where O* is in neighboring hollows and no farther.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, after: int | None = None) -> None:
        super().__init__()
        self.left = after
        """Calls until Ctrl-C; None for never."""

    def calculate(self, atoms=None, properties=("energy",), changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, changes)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        energy = sum(_site_energy(self.atoms, i) for i in _oxygen(self.atoms))
        first, second = neighbor_list("ij", self.atoms, 3.0)
        both = np.isin(first, _oxygen(self.atoms)) & np.isin(
            second, _oxygen(self.atoms)
        )
        self.results = {
            "energy": float(energy + PAIR_EV * both.sum() / 2),
            "forces": np.zeros((len(self.atoms), 3)),
        }


def _oxygen(atoms: Atoms) -> list[int]:
    return [atom.index for atom in atoms if atom.symbol == "O"]


def _site_energy(atoms: Atoms, index: int) -> float:
    metal = [atom.index for atom in atoms if atom.symbol != "O"]
    vectors = atoms.get_distances(index, metal, mic=True, vector=True)
    distances = np.linalg.norm(vectors, axis=1)
    touched = int((distances < distances.min() + 0.05).sum())
    if touched < 3:
        return (TOP_EV, BRIDGE_EV)[touched - 1]
    beneath = np.linalg.norm(vectors[:, :2], axis=1)[vectors[:, 2] < -2.5]
    second_layer = vectors[vectors[:, 2] < -2.5][:, 2] > -3.8
    return HCP_EV if (beneath[second_layer] < 0.1).any() else FCC_EV


def copper(*size: int) -> Atoms:
    return fcc111("Cu", (*size, 4), vacuum=8.0)


def screened(
    folder: Path, coverages: object, atoms: Atoms | None = None, **options: object
) -> ScreenResult:
    entries = [StructureEntry("Cu", copper(2, 2) if atoms is None else atoms)]
    options = {"calculator": PairAdditive(), "model": NO_PLATINUM, **options}
    settings = fast("O", coverages=coverages)
    return run(folder, entries, settings=settings, **options)  # type: ignore[arg-type]


def found(result: ScreenResult) -> list[CoveredSlab]:
    (rows_of_slab,) = result.coverages.values()
    return list(rows_of_slab)


def test_pairs_of_a_filled_cell_are_exact(tmp_path: Path) -> None:
    """On (111) rows of O* have one pair for each O*, a monolayer has three."""
    quarter, half, three, full = found(screened(tmp_path, (0.25, 0.5, 0.75, 1.0)))
    alone = FCC_EV - GAS_EV
    assert [row.n_adsorbed for row in (quarter, half, three, full)] == [1, 2, 3, 4]
    assert [row.n_pairs for row in (quarter, half, three, full)] == [0, 2, 6, 12]
    assert quarter.mean_eV == quarter.differential_eV == pytest.approx(alone)
    assert (quarter.lateral_eV, quarter.lower_ML) == (None, 0.0)
    for row in (half, three, full):
        assert row.lateral_eV == pytest.approx(PAIR_EV)
        assert row.nearest_A == pytest.approx(SPACING_A, abs=0.01)
    assert half.mean_eV == pytest.approx(alone + PAIR_EV)
    assert half.differential_eV == pytest.approx(alone + 2 * PAIR_EV)
    assert full.mean_eV == pytest.approx(alone + 3 * PAIR_EV)
    assert full.differential_eV == pytest.approx(alone + 6 * PAIR_EV)
    assert full.lower_ML == 0.75


def test_differential_energy_is_against_one_adsorbate_where_nothing_lies_between(
    tmp_path: Path,
) -> None:
    (full,) = found(screened(tmp_path, [1.0]))
    expected = (4 * (FCC_EV - GAS_EV) + 12 * PAIR_EV - (FCC_EV - GAS_EV)) / 3
    assert full.differential_eV == pytest.approx(expected)
    assert full.lower_ML == 0.25


def test_images_of_one_adsorbate_are_no_interaction_between_two(
    tmp_path: Path,
) -> None:
    """In p(2x1) O* alone is a row already: of six pairs two are its own twice."""
    (full,) = found(screened(tmp_path, [1.0], copper(2, 1)))
    assert full.n_pairs == 6
    assert full.lateral_eV == pytest.approx(PAIR_EV)


def test_largest_smallest_distance_is_chosen(tmp_path: Path) -> None:
    """A third of a monolayer on p(3x3): √3 apart, no pair of neighbors."""
    (third,) = found(screened(tmp_path, [0.33], copper(3, 3)))
    assert third.coverage_ML == pytest.approx(1 / 3)
    assert third.nearest_A == pytest.approx(3**0.5 * SPACING_A, abs=0.01)
    assert (third.n_pairs, third.lateral_eV) == (0, None)
    assert third.mean_eV == pytest.approx(FCC_EV - GAS_EV)


def test_fourfold_hollows_of_100(tmp_path: Path) -> None:
    atoms = fcc100("Cu", (2, 2, 4), vacuum=8.0)
    (half,) = found(screened(tmp_path, [0.5], atoms))
    assert half.nearest_A == pytest.approx(2**0.5 * SPACING_A, abs=0.01)
    assert half.sites == "4fold#1 + 4fold#4"


def test_of_arrangements_as_wide_the_fewest_pairs_are_taken() -> None:
    plan = plan_slab(
        StructureEntry("Cu", copper(4, 2)), model=NO_PLATINUM, settings=fast("O")
    )
    assert plan.slab is not None
    fcc = next(site for site in plan.sites["O"] if site.label == "fcc")
    hollows = Hollows.of(plan.slab, [(fcc, -2.0)])
    chosen = hollows.choose(4)
    assert chosen is not None
    assert hollows.n_pairs(chosen.tolist()) == 4  # two rows; a lump has more
    assert NEIGHBOR_A < 2**0.5 * SPACING_A < hollows.nearest[0].max() + 1


def test_places_that_are_too_few_or_too_many_to_compare_are_told() -> None:
    entry = StructureEntry("Cu", copper(5, 5))
    plan = plan_slab(entry, model=NO_PLATINUM, settings=fast("O"))
    assert plan.slab is not None
    fcc = next(site for site in plan.sites["O"] if site.label == "fcc")
    every = Hollows.of(plan.slab, [(fcc, -2.0)])
    assert why_not(plan.slab, 12, every) == (
        "5,200,300 ways to put 12 O on 25 hollows are too many to compare: take a "
        "smaller cell"
    )
    assert why_not(plan.slab, 3, every) == ""
    two = Hollows.of(plan.slab, [(replace(fcc, members=fcc.members[:2]), -2.0)])
    assert why_not(plan.slab, 3, two) == (
        "a cell of 25 surface atoms holds 0.04, 0.08 ML, as O* alone stays on 2 fcc "
        "sites"
    )
    none = Hollows.of(plan.slab, [])
    assert why_not(plan.slab, 1, none) == "O* alone stays on no hollow site"
    near = replace(two, nearest=np.full((2, 2), 1.9))
    assert near.choose(2) is None


@pytest.mark.parametrize(
    ("coverages", "message"),
    [
        ([0.3], r"0\.3 ML exactly: a cell of 4 surface atoms holds 0\.25, 0\.5, 0\.75"),
        ([0.0], r"coverage 0; expected monolayers"),
        ([25.0], r"coverage 25; expected monolayers"),
        ([float("nan")], r"coverage nan; expected monolayers"),
    ],
)
def test_coverages_that_cannot_be_are_refused(
    tmp_path: Path, coverages: list[float], message: str
) -> None:
    def check_and_screen() -> None:
        fast("O", coverages=coverages).check()
        screened(tmp_path, coverages)

    with pytest.raises(ConfigError, match=message):
        check_and_screen()


def test_one_slab_of_several_says_what_it_holds(tmp_path: Path) -> None:
    entries = [StructureEntry("p22", copper(2, 2)), StructureEntry("p33", copper(3, 3))]
    settings = fast("O", coverages=[0.5])
    result = run(
        tmp_path,
        entries,
        calculator=PairAdditive(),
        model=NO_PLATINUM,
        settings=settings,
    )
    (held,), (refused,) = result.coverages["p22"], result.coverages["p33"]
    assert held.mean_eV is not None
    assert (refused.status, refused.mean_eV) == ("not_held", None)
    assert refused.note.startswith("a cell of 9 surface atoms holds 0.11, 0.22,")
    by_slab = {row["slab"]: row for row in rows(tmp_path / "results.csv")}
    assert by_slab["p33"]["coverage_notes"] == f"0.5 ML: {refused.note}"
    assert by_slab["p33"]["dE_O_mean_at_0.5_ML_eV"] == ""


def test_tables_hold_it_in_units(tmp_path: Path) -> None:
    result = screened(tmp_path, [0.5])
    (row,), (slab,) = rows(tmp_path / "coverage.csv"), rows(tmp_path / "results.csv")
    alone, summary = (
        FCC_EV - GAS_EV,
        json.loads((tmp_path / "summary.json").read_text()),
    )
    assert float(row["dE_mean_O_H2O_H2_eV"]) == pytest.approx(alone + PAIR_EV)
    assert slab["dE_O_mean_at_0.5_ML_eV"] == row["dE_mean_O_H2O_H2_eV"]
    differential = slab["dE_O_differential_at_0.5_ML_eV"]
    assert differential == row["dE_differential_O_H2O_H2_eV"]
    assert float(slab["lateral_O_at_0.5_ML_eV_per_pair"]) == pytest.approx(PAIR_EV)
    assert (row["coverage_ML"], row["n_O"], row["n_pairs"]) == ("0.5000", "2", "2")
    assert summary["settings"]["coverages_ML"] == [0.5]
    assert summary["ranking"][0]["dE_O_mean_at_0.5_ML_eV"] == pytest.approx(
        alone + PAIR_EV
    )
    assert slab["coverage_ML"] == "0.2500"  # that of the ranking is as it was
    assert len(result.slabs[0].sites) == int(slab["n_sites"]) == 4
    screened(tmp_path, ())
    assert not (tmp_path / "coverage.csv").exists()


@pytest.mark.parametrize("after", [2, 6, 7])
def test_goes_on_after_a_kill(tmp_path: Path, after: int) -> None:
    undisturbed, killed = tmp_path / "a", tmp_path / "b"
    screened(undisturbed, (0.5, 1.0))
    with pytest.raises(KeyboardInterrupt):
        screened(killed, (0.5, 1.0), calculator=PairAdditive(after - 1))
    events: list[ProgressEvent] = []
    result = screened(killed, (0.5, 1.0), events=events)
    assert (result.n_reused, result.n_relaxed) == (after - 1, 8 - after)
    for name in ("results.csv", "coverage.csv"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
    assert [(e.done, e.total) for e in events] == [
        *((n, 5) for n in range(1, 6)),  # clean, and one O* on four sites
        *((n, 2) for n in range(1, 3)),  # its own part: the total never grows
    ]


def test_a_coverage_out_of_the_domain_has_no_energy(tmp_path: Path) -> None:
    limits = Limits(smallest_area_A2=10.0)  # half a monolayer of Cu(111) has 11.3

    def distance(atoms: Atoms) -> tuple[float, str]:
        return limits.distance(atoms)

    half, full = found(screened(tmp_path, (0.5, 1.0), distance=distance))
    assert half.mean_eV is not None
    assert (full.status, full.mean_eV, full.lateral_eV) == ("out_of_domain", None, None)
    assert "Å" in full.note


def test_a_network_that_does_not_tell_its_data_is_noted(tmp_path: Path) -> None:
    model = replace(NO_PLATINUM, dtype="float32")
    one, two = found(screened(tmp_path, (0.25, 0.5), model=model))
    assert "does not say up to which coverage" in two.note
    assert one.note == ""


class Wandering(PairAdditive):
    """Two O* on a slab end on another site than they started from."""

    def calculate(self, atoms=None, properties=("energy",), changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, changes)
        oxygen = _oxygen(self.atoms)
        if len(oxygen) == 2:
            start = self.atoms.positions[oxygen[1]]
            self.target = getattr(self, "target", start - np.array([0.0, 1.47, 0.0]))
            pull = self.target - start  # to the hcp hollow beside it
            self.results = {
                "energy": -5.0 + 0.5 * float(pull @ pull),
                "forces": np.zeros((len(self.atoms), 3)),
            }
            self.results["forces"][oxygen[1]] = pull


def test_arrangements_that_do_not_stay_have_no_lateral_interaction(
    tmp_path: Path,
) -> None:
    (half,) = found(screened(tmp_path, [0.5], calculator=Wandering()))
    assert half.mean_eV is not None
    assert half.lateral_eV is None
    assert "no lateral interaction" in half.note


def test_an_odd_slab_is_a_row_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Hollows, count: int) -> None:
        raise IndexError("no such place")

    monkeypatch.setattr(Hollows, "choose", fail)
    (half,) = found(result := screened(tmp_path, [0.5]))
    assert (half.status, half.note) == ("failed", "IndexError: no such place")
    assert result.slabs[0].rank == 1


def test_what_is_needed_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="add O to the adsorbates"):
        fast("OH", coverages=[0.5]).check()
    with pytest.raises(ConfigError, match="total energies"):
        fast("O", coverages=[0.5]).check_for(
            replace(NO_PLATINUM, energy_reference="adsorption")
        )
    with pytest.raises(ConfigError, match="cannot read --coverage 'half'"):
        parse_coverages("half")
    assert parse_coverages("0.5, 0.25") == (0.5, 0.25)
    assert ScreenSettings(coverages=(0.5, 0.25, 0.5)).coverages == (0.25, 0.5)
    with pytest.raises(ConfigError, match="expected numbers"):
        ScreenSettings(coverages=0.5)  # type: ignore[arg-type]


def test_emt_relaxes_a_covered_slab(tmp_path: Path) -> None:
    quarter, half = found(screened(tmp_path, (0.25, 0.5), calculator=EMT()))
    assert quarter.mean_eV is not None
    assert half.mean_eV is not None
    assert half.lateral_eV == pytest.approx(half.mean_eV - quarter.mean_eV, abs=1e-9)
