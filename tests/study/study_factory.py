"""A study of seconds: two methods, two seeds, three steps."""

from pathlib import Path
from typing import Any

import yaml

from crack_md.study.plan import Plan, load_study, plan_study
from crack_md.training.loop.monitor import RunMonitor
from tests.training.factories import recipe

TASK = {"kind": "task", "energy_weight": 4.0, "force_weight": 100.0}
CRACK = {"kind": "crack", "weight": 1.0, "temperature": 0.15}


def study_tree(data: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the study as its file would hold it."""
    tree = {
        "base": recipe(data, folder, max_steps=3),
        "methods": {
            "vanilla": {"losses": [TASK]},
            "crack+task": {"losses": [CRACK, TASK]},
        },
        "seeds": [1, 2],
        "folder": str(folder),
        "evaluate": {"path": str(data), "split": "all"},
    }
    return tree | changes


def study_file(tree: dict[str, Any], folder: Path) -> Path:
    """Write the study file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def plan_of(data: Path, folder: Path, **changes: Any) -> Plan:
    """Return the plan of the study with changes."""
    path = study_file(study_tree(data, folder, **changes), folder)
    return plan_study(load_study(path), source=path.name)


def silent() -> RunMonitor:
    """Return a watch that shows nothing."""
    return RunMonitor(shows=False)
