"""What each round gained: printed, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crack_md.training.on_policy.folder import LoopFolder
from crack_md.training.run import replacing

NOTHING = "–"
FORCE, ENERGY = "force_mae_meV_per_A", "energy_mae_meV_per_atom"
Row = dict[str, Any]
PRINTED: dict[str, tuple[str, str, int, str]] = {
    "round": ("", "round", 5, "d"),
    "n_frames": ("", "frames", 7, "d"),
    "n_quarantined": ("quar-", "antine", 7, "d"),
    "n_selected": ("", "chosen", 7, "d"),
    "n_labelled": ("label-", "led", 7, "d"),
    f"own_{FORCE}": ("own", "F", 7, ".1f"),
    f"own_{ENERGY}": ("own", "E", 7, ".2f"),
    f"val_{FORCE}": ("valid.", "F", 7, ".1f"),
    f"val_{ENERGY}": ("valid.", "E", 7, ".2f"),
    f"held_out_{FORCE}": ("held", "out F", 7, ".1f"),
    f"held_out_{ENERGY}": ("held", "out E", 7, ".2f"),
}
"""Two lines of heading, width and format of the columns that fit into 80."""


def rows_of(folder: LoopFolder, n_rounds: int) -> list[Row]:
    """Return one row for each round that has a student."""
    rows = []
    for number in range(n_rounds + 1):
        here = folder.round(number)
        trained = here.record("train")
        if trained is None:
            break
        explored = here.record("explore") or {}
        selected, labelled = here.record("select") or {}, here.record("label") or {}
        own = labelled.get("own", {})
        rows.append(
            {
                "round": number,
                "n_train": trained["n_train"],
                "n_new": trained["n_new"],
                "n_repeats": trained["n_repeats"],
                "steps": trained["steps"],
                **_errors("val", trained["validation"]),
                **_errors("held_out", trained["held_out"]),
                "n_starts": explored.get("n_starts"),
                "n_frames": explored.get("n_frames"),
                "n_quarantined": explored.get("n_quarantined"),
                "quarantined": explored.get("quarantined", {}),
                "n_selected": selected.get("n_selected"),
                "n_random": selected.get("n_random"),
                "n_labelled": labelled.get("n_labelled"),
                "n_dropped": labelled.get("n_dropped"),
                **_errors("own", own.get("all")),
                **_errors("control", own.get("random")),
                **_errors("disputed", own.get("disagreement")),
                "train_s": trained["seconds"],
                "explore_s": explored.get("seconds"),
                "label_s": labelled.get("seconds"),
            }
        )
    return rows


def write_table(folder: LoopFolder, n_rounds: int) -> list[Row]:
    """Write table.csv and table.json; return the rows."""
    rows = rows_of(folder, n_rounds)
    _write(folder.path / "table.json", json.dumps(rows, indent=1) + "\n")
    buffer = io.StringIO()
    flat = [{**row, "quarantined": _counts(row["quarantined"])} for row in rows]
    writer = csv.DictWriter(buffer, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    _write(folder.path / "table.csv", buffer.getvalue())
    return rows


def printed(rows: Sequence[Row]) -> str:
    """Return the table in at most 80 columns, and its legend."""
    upper = "".join(top.rjust(width) for top, _, width, _ in PRINTED.values())
    lower = "".join(name.rjust(width) for _, name, width, _ in PRINTED.values())
    lines = [upper, lower]
    for row in rows:
        cells = [
            _cell(row[key], form).rjust(width)
            for key, (*_, width, form) in PRINTED.items()
        ]
        lines.append("".join(cells))
    lines.append("F in meV/Å, E in meV/atom; own: before training on these frames")
    for row in rows:
        told = []
        if row["quarantined"]:
            told.append(f"quarantined {_counts(row['quarantined'])}")
        if row[f"control_{FORCE}"] is not None:
            told.append(f"own F of the control {row[f'control_{FORCE}']:.1f}")
        if row["label_s"] is not None:
            told.append(f"labels {row['label_s']:.0f} s")
        if told:
            lines.append(f"round {row['round']}: {', '.join(told)}")
    return "\n".join(lines)


def _errors(name: str, metrics: dict[str, Any] | None) -> Row:
    return {f"{name}_{key}": (metrics or {}).get(key) for key in (FORCE, ENERGY)}


def _cell(value: float | int | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
