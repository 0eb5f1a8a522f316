"""A ranking as files: ranking.csv for people and programs, ranking.json for the report.

The report must not show chances that belong to older results, so ranking.json carries
the fingerprint of the table that was ranked.
"""

import csv
import hashlib
import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crack_md.workflows.ranking_records import RankedSlab, Ranking
from crack_md.workflows.tables import write_atomically

CSV_NAME, JSON_NAME = "ranking.csv", "ranking.json"


def write_ranking(ranking: Ranking, folder: Path, **provenance: Any) -> dict[str, Any]:
    """Write ranking.csv and ranking.json beside the results; return the latter.

    Raises:
        DataError: a file cannot be written.
    """
    told = {
        **_plain(asdict(ranking)),
        "results_sha256": _results_sha256(folder),
        **provenance,
    }
    write_atomically(folder / CSV_NAME, _table(ranking))
    text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / JSON_NAME, (text + "\n").encode())
    return told


def read_ranking(folder: Path) -> dict[str, Any] | None:
    """Return ranking.json; None where there is none for the results as they are now."""
    path = folder / JSON_NAME
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        current = told["results_sha256"] == _results_sha256(folder)
    except (ValueError, KeyError, TypeError):
        return None
    return told if current else None


def columns(ranking: Ranking) -> dict[str, str]:
    """Return the column of ranking.csv for every field of a row."""
    name, top = ranking.adsorbate, ranking.settings.top
    energies = {
        field: f"{field[:2]}_{name}{field[2:]}"
        for field in RankedSlab.__dataclass_fields__
        if field.startswith(("dE_", "dG_"))
    }
    names = {field: field for field in RankedSlab.__dataclass_fields__}
    return {
        **names,
        **energies,
        "screened_dE_eV": f"dE_{name}_screened_eV",
        "p_best": "P_best",
        "p_top": f"P_top{top}",
    }


def _table(ranking: Ranking) -> bytes:
    names = columns(ranking)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names.values())
    for row in ranking.slabs:
        values = [getattr(row, field) for field in names]
        writer.writerow(
            # adding zero turns -0.0 into 0.0
            f"{round(value, 4) + 0.0:.4f}" if isinstance(value, float) else value
            for value in values
        )
    return text.getvalue().encode()


def _results_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "results.csv").read_bytes()).hexdigest()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: rounded, and infinity as null."""
    if isinstance(value, dict):
        return {key: _plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(content) for content in value]
    if isinstance(value, float):
        # a tenth of a microelectronvolt; adding zero turns -0.0 into 0.0
        return round(value, 7) + 0.0 if math.isfinite(value) else None
    return value
