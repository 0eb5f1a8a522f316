from pathlib import Path

import numpy as np
import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.db.core import Database

from crack_md.errors import DataError
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.store import RelaxationRecord, open_store, relaxation_key
from crack_md.workflows.screening.plan import ScreenSettings

MODEL = ModelInfo("m", "abc", "total", {"H2O": 1.0})
CONDITIONS = ScreenSettings().conditions(MODEL)


def test_key_is_the_same_wherever_it_is_computed() -> None:
    slab = fcc111("Cu", (1, 1, 3), a=3.63, vacuum=8.0)
    slab.positions = np.round(slab.positions, 3)
    key = relaxation_key(slab, "fcc", CONDITIONS)
    assert key.startswith("cb7336a038135fa9")
    slab.positions += 1e-9
    assert relaxation_key(slab, "fcc", CONDITIONS) == key


def test_key_knows_structure_site_model_and_settings() -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=8.0)
    fixed, strained, other = slab.copy(), slab.copy(), slab.copy()
    fixed.set_constraint(FixAtoms([0]))
    strained.set_cell(slab.cell * 1.001)
    other.symbols[0] = "Ag"
    keys = {
        relaxation_key(s, "fcc", CONDITIONS) for s in (slab, fixed, strained, other)
    }
    keys.add(relaxation_key(slab, "hcp", CONDITIONS))
    for settings, model in (
        (ScreenSettings(fmax=0.05), MODEL),
        (ScreenSettings(steps=10), MODEL),
        (ScreenSettings(), ModelInfo("m", "abd", "total", {"H2O": 1.0})),
    ):
        keys.add(relaxation_key(slab, "fcc", settings.conditions(model)))
    assert len(keys) == 8


def test_records_and_structures_come_back_exactly(tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=8.0)
    slab.rattle(0.1, seed=0)
    record = RelaxationRecord(
        "k", "12", "fcc", "converged", energy=1 / 3, n_steps=4, final_site="hcp"
    )
    with open_store(tmp_path, CONDITIONS) as store:
        store.put(record, slab)
    with open_store(tmp_path, CONDITIONS) as store:
        assert len(store) == 1
        assert store.record("k") == record
        assert store.record("other") is None
        assert np.array_equal(store.atoms("k").positions, slab.positions)


def test_results_that_are_removed_in_mid_run_are_an_error(tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=8.0)
    with open_store(tmp_path, CONDITIONS) as store:
        store.put(RelaxationRecord("a", "1", "", "converged", energy=1.0), slab)
        (tmp_path / "results.db").unlink()
        with pytest.raises(DataError, match=r"results\.db' was removed while"):
            store.put(RelaxationRecord("b", "2", "", "converged", energy=2.0), slab)


def test_run_killed_before_its_first_result_is_continued(tmp_path: Path) -> None:
    with open_store(tmp_path, CONDITIONS):
        pass
    with open_store(tmp_path, CONDITIONS) as store:
        assert len(store) == 0


def test_full_disk_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with open_store(tmp_path, CONDITIONS) as store:
        monkeypatch.setattr(Database, "write", no_space)
        with pytest.raises(DataError, match=r"No space left.*run the same command"):
            store.put(
                RelaxationRecord("k", "a", "", "converged"), fcc111("Cu", (1, 1, 1))
            )
