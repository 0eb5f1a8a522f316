import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.db import connect

from crack_md.errors import ConfigError, DataError
from crack_md.progress import ProgressEvent
from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.store import open_store
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.results import ScreenResult
from tests.workflows.screening.small_screenings import EMT_MODEL, fast, rows, run, slab

FAST = fast()


@pytest.fixture(scope="module")
def metals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScreenResult]:
    folder = tmp_path_factory.mktemp("metals")
    return folder, run(folder, [StructureEntry(m, slab(m)) for m in ("Pt", "Au", "Cu")])


def test_energies_are_differences_of_totals(metals: tuple[Path, ScreenResult]) -> None:
    folder, _ = metals
    sites = rows(folder / "sites.csv")
    assert len(sites) == 4 * 4  # three metals and the Pt(111) reference
    for row in sites:
        difference = float(row["energy_eV"]) - float(row["clean_slab_energy_eV"])
        expected = difference - (0.0 - 1.5)
        assert float(row["dE_O_H2O_H2_eV"]) == pytest.approx(expected, abs=3e-4)
        assert float(row["dG_O_eV"]) == pytest.approx(expected + 0.04, abs=3e-4)


def test_ranking_follows_the_limiting_potential(
    metals: tuple[Path, ScreenResult],
) -> None:
    folder, result = metals
    table = rows(folder / "results.csv")
    assert [row["rank"] for row in table] == ["1", "2", "3"]
    potentials = [float(row["U_L_V"]) for row in table]
    assert potentials == sorted(potentials, reverse=True)
    for row in table:
        dG = float(row["dG_O_eV"])
        assert float(row["U_L_V"]) == pytest.approx(
            min(1.72 - dG / 2, dG / 2), abs=2e-4
        )
        assert float(row["overpotential_V"]) == pytest.approx(
            1.23 - float(row["U_L_V"]), abs=2e-4
        )
    for name in ("Pt", "Au", "Cu"):
        of_slab = next(s for s in result.slabs if s.name == name)
        energies = [site.adsorption_energy for site in of_slab.sites]
        assert of_slab.best is not None
        assert of_slab.best.adsorption_energy == min(e for e in energies if e)


def test_distance_to_platinum_of_the_same_model(
    metals: tuple[Path, ScreenResult],
) -> None:
    _, result = metals
    assert result.pt111 is not None
    assert "own lattice constant, 3.92" in result.pt111_source
    assert result.pt111.best is not None
    origin = result.pt111.best.adsorption_energy
    for of_slab in result.slabs:
        assert of_slab.best is not None
        assert of_slab.energies_vs_pt111["O"] == pytest.approx(
            of_slab.best.adsorption_energy - origin
        )


def test_platinum_of_the_input_is_the_reference(tmp_path: Path) -> None:
    entries = [StructureEntry("mine", fcc111("Pt", (2, 2, 3), vacuum=8.0))]
    result = run(tmp_path, entries)
    assert result.pt111_source == "'mine' of the input"
    assert result.slabs[0].energies_vs_pt111["O"] == 0.0


def test_database_holds_every_relaxed_structure(
    metals: tuple[Path, ScreenResult],
) -> None:
    folder, _ = metals
    database = connect(folder / "results.db")
    assert len(database) == 4 * 5
    row = database.get(slab="Cu", site="fcc")
    assert row.formula == "Cu3O"
    assert np.linalg.norm(row.forces[row.constrained_forces.any(axis=1)]) < 1.0
    assert row.fmax < 0.1


def test_summary_names_model_settings_and_sources(
    metals: tuple[Path, ScreenResult],
) -> None:
    folder, _ = metals
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["counts"]["slabs"] == {"ok": 3}
    assert summary["counts"]["relaxations_done"] == 20
    assert summary["model"]["sha256"] == "ase"
    assert summary["settings"]["scaling"] == "man-2011"
    assert summary["settings"]["fmax_eV_per_A"] == 0.1
    assert len(summary["ranking"]) == 3


class Interrupting(EMT):
    """EMT that is stopped by Ctrl-C in its nth call."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def calculate(self, *args: object, **kwargs: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        super().calculate(*args, **kwargs)


@pytest.mark.parametrize("after", [1, 17, 60])
def test_resume_after_a_kill_gives_the_same_table(
    tmp_path: Path, metals: tuple[Path, ScreenResult], after: int
) -> None:
    entries = [StructureEntry(m, slab(m)) for m in ("Pt", "Au", "Cu")]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, entries, calculator=Interrupting(after + 10))
    assert not (tmp_path / "results.csv").exists()
    finished = len(connect(tmp_path / "results.db"))
    events: list[ProgressEvent] = []
    result = run(tmp_path, entries, events=events)
    assert result.n_reused == finished
    assert result.n_relaxed == 20 - finished
    assert [event.done for event in events] == list(range(1, 21))
    for name in ("results.csv", "sites.csv"):
        undisturbed = metals[0] / name
        assert (tmp_path / name).read_bytes() == undisturbed.read_bytes()


def test_other_settings_in_the_same_folder_are_refused(
    tmp_path: Path,
) -> None:
    entries = [StructureEntry("Cu", slab("Cu"))]
    run(tmp_path, entries)
    with pytest.raises(DataError, match=r"fmax_eV_per_A 0\.1 \(now 0\.2\).*--out"):
        run(tmp_path, entries, settings=ScreenSettings(fmax=0.2))


def test_folder_is_used_by_one_run_at_a_time(tmp_path: Path) -> None:
    conditions = FAST.conditions(EMT_MODEL)
    refused = pytest.raises(DataError, match="another run")
    with open_store(tmp_path, conditions), refused, open_store(tmp_path, conditions):
        pass


def test_foreign_and_damaged_databases_are_refused(tmp_path: Path) -> None:
    connect(tmp_path / "results.db").write(slab("Cu"))
    with pytest.raises(DataError, match="not the result of a screening"):
        run(tmp_path, [])
    (tmp_path / "results.db").write_bytes(b"noise" * 500)
    with pytest.raises(DataError, match="damaged"):
        run(tmp_path, [])


def test_bad_rows_do_not_stop_good_ones(tmp_path: Path) -> None:
    broken = slab("Pt")
    broken.positions[0] = np.nan
    entries = [
        StructureEntry("bulk", bulk("Pt") * (2, 2, 2)),
        StructureEntry("nan", broken),
        StructureEntry("lost", None, "row 3 cannot be read"),
        StructureEntry("iron", fcc111("Fe", (1, 1, 3), a=3.6, vacuum=8.0)),
        StructureEntry("good", slab("Cu")),
    ]
    model = ModelInfo(
        "emt", "ase", "total", EMT_MODEL.gas_references, frozenset(["Cu", "O"])
    )
    result = run(tmp_path, entries, model=model)
    assert {s.name: s.status for s in result.slabs} == {
        "good": "ok",
        "bulk": "no_surface",
        "nan": "bad_structure",
        "lost": "unreadable",
        "iron": "unknown_element",
    }
    assert [s.rank for s in result.slabs] == [1, None, None, None, None]
    assert all(s.error for s in result.slabs[1:])
    assert result.pt111_source == "none: the model does not know Pt"
    assert any(slab.status == "ok" for slab in result.slabs)


def test_calculator_failures_are_rows(tmp_path: Path) -> None:
    """EMT knows no Ru: the error text ends up in the table."""
    entries = [StructureEntry("Ru", fcc111("Ru", (1, 1, 3), a=3.8, vacuum=8.0))]
    result = run(tmp_path, entries)
    assert result.slabs[0].status == "clean_failed"
    assert "Ru" in result.slabs[0].error
    assert not any(slab.status == "ok" for slab in result.slabs)
    assert rows(tmp_path / "results.csv")[0]["rank"] == ""


def test_too_few_steps_are_not_a_result(tmp_path: Path) -> None:
    settings = ScreenSettings(fmax=1e-3, steps=1)
    result = run(tmp_path, [StructureEntry("Cu", slab("Cu"))], settings=settings)
    assert result.slabs[0].status == "clean_not_converged"
    assert result.slabs[0].rank is None


def test_adsorption_energy_model_needs_no_clean_slab(tmp_path: Path) -> None:
    """Its energies are taken as they are, on the H2O and H2 scale."""
    model = ModelInfo("o-star", "0", "adsorption")
    result = run(tmp_path, [StructureEntry("Cu", slab("Cu"))], model=model)
    (copper,) = result.slabs
    assert copper.clean is None
    assert len(connect(tmp_path / "results.db")) == 2 * 4
    for site in copper.sites:
        assert site.adsorption_energy == site.record.energy
    assert "RPBE" in result.pt111_source


def test_gas_energies_are_asked_for(tmp_path: Path) -> None:
    model = ModelInfo("emt", "ase", "total")
    with pytest.raises(ConfigError, match="--gas-reference"):
        run(tmp_path, [StructureEntry("Cu", slab("Cu"))], model=model)


def test_same_structure_twice_is_relaxed_once(tmp_path: Path) -> None:
    entries = [StructureEntry("a", slab("Cu")), StructureEntry("b", slab("Cu"))]
    result = run(tmp_path, entries)
    assert [s.name for s in result.slabs] == ["a", "b"]
    assert result.slabs[0].best is not None
    assert result.slabs[1].best is not None
    energies = {s.best.adsorption_energy for s in result.slabs if s.best}
    assert len(energies) == 1
    assert result.n_reused == 5
