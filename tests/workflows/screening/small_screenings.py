"""Small screenings with EMT that several test files share."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import BaseCalculator
from ase.calculators.emt import EMT

from crack_md.progress import ProgressEvent
from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.store import open_store
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.results import ScreenResult
from crack_md.workflows.screening.screen import screen_slabs
from crack_md.workflows.screening.tables import write_tables
from crack_md.workflows.surfaces.adsorbates import parse_adsorbates

EMT_MODEL = ModelInfo("emt", "ase", "total", {"H2O": 0.0, "H2": 1.5})

NO_PLATINUM = replace(
    EMT_MODEL, elements=frozenset(["Ag", "Au", "Cu", "Ni", "C", "H", "O"])
)
"""Saves the relaxations of the Pt(111) reference."""


def fast(adsorbates: str = "O", **options: Any) -> ScreenSettings:
    return ScreenSettings(
        **{"adsorbates": parse_adsorbates(adsorbates), "fmax": 0.1, **options}
    )


def slab(metal: str) -> Atoms:
    return fcc111(metal, (1, 1, 3), vacuum=8.0)


def run(
    folder: Path,
    entries: Sequence[StructureEntry],
    *,
    calculator: BaseCalculator | None = None,
    model: ModelInfo = EMT_MODEL,
    settings: ScreenSettings | None = None,
    events: list[ProgressEvent] | None = None,
    **options: Any,
) -> ScreenResult:
    chosen = settings or fast()
    with open_store(folder, chosen.conditions(model)) as store:
        result = screen_slabs(
            entries,
            calculator or EMT(),
            model=model,
            store=store,
            settings=chosen,
            report=None if events is None else events.append,
            **options,
        )
    write_tables(result, folder)
    return result


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))
