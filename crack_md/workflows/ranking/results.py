"""A ranking as files: ranking.csv for people and programs, ranking.json for the report.

The report must not show chances that belong to older results, so ranking.json carries
the fingerprint of the table that was ranked.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crack_md.files import csv_bytes, file_sha256, write_atomically, write_json
from crack_md.workflows.ranking.records import RankedSlab, Ranking

CSV_NAME, JSON_NAME = "ranking.csv", "ranking.json"


def write_ranking(ranking: Ranking, folder: Path, **provenance: Any) -> dict[str, Any]:
    """Write ranking.csv and ranking.json beside the results; return the latter.

    Raises:
        DataError: a file cannot be written.
    """
    record = {
        **_plain(asdict(ranking)),
        "results_sha256": file_sha256(folder / "results.csv"),
        **provenance,
    }
    write_atomically(folder / CSV_NAME, _table(ranking))
    write_json(folder / JSON_NAME, record)
    return record


def read_ranking(folder: Path) -> dict[str, Any] | None:
    """Return ranking.json; None where there is none for the results as they are now."""
    path = folder / JSON_NAME
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        current = record["results_sha256"] == file_sha256(folder / "results.csv")
    except (ValueError, KeyError, TypeError):
        return None
    return record if current else None


def table_row(row: RankedSlab, top: int, adsorbates: Sequence[str]) -> dict[str, Any]:
    """Return a row of ranking.csv, units in the column names.

    ``interval`` tells its columns from the band over scalings in results.csv.
    """
    by_name = {energy.adsorbate: energy for energy in row.energies}
    flat: dict[str, Any] = {
        "rank": row.rank,
        "screen_rank": row.screen_rank,
        "slab": row.slab,
        "formula": row.formula,
        "U_L_V": row.U_L_V,
        "U_L_interval_low_V": row.U_L_low_V,
        "U_L_interval_high_V": row.U_L_high_V,
        "P_best": row.p_best,
        f"P_top{top}": row.p_top,
        "rank_low": row.rank_low,
        "rank_high": row.rank_high,
    }
    for name in adsorbates:
        energy = asdict(by_name[name]) if name in by_name else {}
        flat |= {
            f"{name}_site": energy.get("site"),
            f"{name}_source": energy.get("source"),
            f"dE_{name}_screened_eV": energy.get("screened_dE_eV"),
        }
        for kind in ("dE", "dG"):
            flat |= {
                f"{kind}_{name}_eV": energy.get(f"{kind}_eV"),
                f"{kind}_{name}_interval_low_eV": energy.get(f"{kind}_low_eV"),
                f"{kind}_{name}_interval_high_eV": energy.get(f"{kind}_high_eV"),
            }
    return flat


def _table(ranking: Ranking) -> bytes:
    top, adsorbates = ranking.settings.top, ranking.adsorbates
    rows = [table_row(row, top, adsorbates) for row in ranking.slabs]
    return csv_bytes(rows, decimals=4)


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
