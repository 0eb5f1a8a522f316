"""A loop of seconds: cells of Ag, Cu and Pd, EMT as the teacher, a tiny student."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk
from ase.io import write

from crack_md.data.labelling import SplitRule, label_structures
from crack_md.training.on_policy.config import LoopConfig
from tests.training.factories import TINY

HELD_OUT = (("Ag", "Pd"),)
METALS = ("Ag", "Cu", "Pd")


def cell(number: int, **info: str) -> Atoms:
    """Return a rattled cell; every third one has Ag and Pd."""
    atoms = bulk("Cu", a=3.7, cubic=True)
    symbols = [METALS[number % 3], METALS[(number + 1) % 3], "Cu", "Cu"]
    if number % 3 == 2:
        symbols = ["Ag", "Pd", "Cu", "Cu"]
    atoms.set_chemical_symbols(symbols)
    atoms.rattle(0.08, seed=number)
    atoms.info = {"group": f"cell-{number}", "kind": "rattled", **info}
    return atoms


def write_data(folder: Path) -> Path:
    """Write a labelled set whose metadata say how it was split."""
    write(folder / "cells.db", [cell(number) for number in range(18)])
    out = folder / "data.aselmdb"
    rule = SplitRule(HELD_OUT, val=0.3, seed=2)
    label_structures([folder / "cells.db"], out, teacher="emt", split=rule)
    return out


def loop_tree(data: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the loop as its file would hold it; its student is written beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {
        "student": {"architecture": {**TINY, "forces": "gradient"}},
        "data": {"path": "replaced"},
        "losses": [{"kind": "task", "energy_weight": 4.0, "force_weight": 100.0}],
        "optimizer": {"lr": 5e-3},
        "run": {
            "folder": "replaced",
            "batch_size": 4,
            "max_seconds": 1.0,
            "checkpoint_every": 4,
            "accelerator": "cpu",
        },
    }
    student = folder / "student.yaml"
    student.write_text(yaml.safe_dump(recipe))
    starts = folder / "starts.db"
    if not starts.exists():
        write(starts, [cell(number) for number in range(18, 30)])
    tree = {
        "folder": str(folder / "run"),
        "student": str(student),
        "data": str(data),
        "teacher": "emt",
        "rounds": 1,
        "train": {"steps": 8, "later_steps": 4},
        "starts": {"path": str(starts), "limit": 3},
        "explore": {
            "relax": {"steps": 3},
            "dynamics": {"steps": 4, "every": 2, "timestep_fs": 3.0},
            "together": 2,
            "device": "cpu",
        },
        "select": {"budget": 5, "random_share": 0.4, "spacing_A": 0.01},
        "label": {"largest_force": 100.0},
        "mix": {"repeats": 2},
        "check_last": False,
    }
    return tree | changes


def loop_config(data: Path, folder: Path, **changes: Any) -> LoopConfig:
    """Return the checked loop."""
    return LoopConfig.model_validate(loop_tree(data, folder, **changes))


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table without what the clock decides."""
    return [
        {key: value for key, value in row.items() if not key.endswith("_s")}
        for row in rows
    ]


def positions_of(frames: list[Atoms]) -> list[np.ndarray]:
    """Return the positions of frames."""
    return [frame.positions for frame in frames]
