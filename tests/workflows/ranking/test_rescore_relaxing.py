"""Re-scoring by relaxing on: the settings of the screening, and what goes wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.emt import EMT

from crack_md.workflows.ranking.rescore import rescore
from crack_md.workflows.relax.relax import RelaxResult, RelaxSettings, relax_atoms
from crack_md.workflows.screening.reader import SavedScreening, read_screening
from tests.workflows.ranking.screenings import EMT_MODEL, run_screening


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_screening(tmp_path_factory.mktemp("screened"))


@pytest.fixture
def screening(folder: Path) -> SavedScreening:
    (folder / "rescored.jsonl").unlink(missing_ok=True)
    return read_screening(folder)


def test_relaxing_on_from_a_minimum_stays_there(screening: SavedScreening) -> None:
    (best,) = rescore(screening, EMT(), model=EMT_MODEL, top=1, relaxes=True)
    assert best.slab == screening.candidates[0].slab
    assert best.status == "converged"
    assert best.dE_eV == pytest.approx(best.screened_eV, abs=2e-4)


def test_relaxes_as_the_screening_did(
    screening: SavedScreening, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "optimizer": "FIRE",
        "fmax_eV_per_A": 0.2,
        "steps": 7,
        "maxstep_A": 0.02,
    }
    of_run = {**screening.summary, "settings": {**screening.settings, **settings}}
    seen: list[RelaxSettings] = []

    def spy(*args: Any, **kwargs: Any) -> RelaxResult:
        seen.append(kwargs["settings"])
        return relax_atoms(*args, **kwargs)

    monkeypatch.setattr("crack_md.workflows.ranking.rescore.relax_atoms", spy)
    changed = SavedScreening(screening.folder, screening.slabs, screening.sites, of_run)
    rescore(changed, EMT(), model=EMT_MODEL, top=1, relaxes=True)
    assert len(seen) == 2  # covered and clean
    for used in seen:
        assert used.optimizer == "FIRE"
        assert (used.fmax, used.steps, used.maxstep) == (0.2, 7, 0.02)


class Floor(EMT):
    """Forces on oxygen never fall below a floor, as those of a head may not."""

    def __init__(self, floor_eV_per_A: float) -> None:
        super().__init__()
        self.floor = floor_eV_per_A

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        super().calculate(atoms, *args, **kwargs)
        oxygen = np.flatnonzero(atoms.symbols == "O")
        forces = self.results["forces"]
        size = np.linalg.norm(forces[oxygen], axis=1, keepdims=True)
        forces[oxygen] *= np.maximum(1.0, self.floor / size)


@pytest.mark.parametrize(
    ("floor", "forces", "status"),
    [
        (0.08, "direct", "plateau"),
        (0.15, "direct", "not_converged"),
        (0.08, "gradient", "not_converged"),
    ],
)
def test_direct_forces_may_end_on_a_plateau(
    screening: SavedScreening, floor: float, forces: str, status: str
) -> None:
    model = replace(EMT_MODEL, sha256=f"{floor} {forces}", forces=forces)
    (best,) = rescore(screening, Floor(floor), model=model, top=1, relaxes=True)
    assert best.status == status
    assert best.is_usable == (status == "plateau")
    if best.is_usable:
        assert best.dE_eV == pytest.approx(best.screened_eV, abs=0.02)


class Lifting(EMT):
    """Pulls oxygen to 6 Å above the highest metal atom, by a spring of 4 eV/Å²."""

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        super().calculate(atoms, *args, **kwargs)
        oxygen = atoms.symbols == "O"
        if oxygen.any():
            height = atoms.positions[:, 2]
            short = height[~oxygen].max() + 6.0 - height[oxygen]
            self.results["energy"] += float(2.0 * (short**2).sum())
            self.results["forces"][oxygen, 2] += 4.0 * short


def test_what_desorbs_in_the_other_model_does_not_count(
    screening: SavedScreening,
) -> None:
    model = replace(EMT_MODEL, sha256="lifting")
    (best,) = rescore(screening, Lifting(), model=model, top=1, relaxes=True)
    assert best.status == "desorbed"
    assert not best.is_usable
    assert best.moved_A is not None
    assert best.moved_A > 3.0
