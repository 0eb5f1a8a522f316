"""The loop: train, explore, select, label, and again; resumable after any kill.

Every stage leaves its numbers in a file when it is done, and is skipped where that file
is there. A stage that was stopped is resumed: the trainer from its checkpoint,
exploration and labelling from the rows that are written.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from crack_md.data.dataset import read_dataset
from crack_md.errors import DataError
from crack_md.files import write_atomically, write_text
from crack_md.models.teachers import load_teacher
from crack_md.training.on_policy.config import LoopConfig
from crack_md.training.on_policy.explore import explore_round
from crack_md.training.on_policy.folder import Loop, LoopFolder, count
from crack_md.training.on_policy.labelling import label_round, select_round
from crack_md.training.on_policy.starts import split_rule
from crack_md.training.on_policy.student import train_round, training_config

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
    write_text(folder.path / "table.json", json.dumps(rows, indent=1) + "\n")
    buffer = io.StringIO()
    flat = [{**row, "quarantined": _counts(row["quarantined"])} for row in rows]
    writer = csv.DictWriter(buffer, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    write_text(folder.path / "table.csv", buffer.getvalue())
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
        facts = []
        if row["quarantined"]:
            facts.append(f"quarantined {_counts(row['quarantined'])}")
        if row[f"control_{FORCE}"] is not None:
            facts.append(f"own F of the control {row[f'control_{FORCE}']:.1f}")
        if row["label_s"] is not None:
            facts.append(f"labels {row['label_s']:.0f} s")
        if facts:
            lines.append(f"round {row['round']}: {', '.join(facts)}")
    return "\n".join(lines)


def _errors(name: str, metrics: dict[str, Any] | None) -> Row:
    return {f"{name}_{key}": (metrics or {}).get(key) for key in (FORCE, ENERGY)}


def _cell(value: float | int | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())


def run_loop(
    config: LoopConfig,
    *,
    quiet: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> str | None:
    """Do all rounds, or what is left of them.

    Args:
        config: The loop.
        quiet: The trainer prints nothing.
        say: Called with a line about every stage.

    Returns:
        The signal that stopped it early, None at the end.

    Raises:
        ConfigError: The folder holds another loop, or the recipe does not work.
        DataError: The folder or the data cannot be used.
    """
    folder = LoopFolder(config.folder)
    with folder.claimed(config):
        read = lru_cache(maxsize=None)(read_dataset)
        rule = split_rule(config, read(config.data))
        loop = Loop(config, folder, rule, read, say, quiet)
        _check(loop)
        for number in range(config.rounds + 1):
            stopped_by = _do_round(loop, number)
            write_table(folder, config.rounds)
            if stopped_by is not None:
                return stopped_by
        last = folder.round(config.rounds).student.read_bytes()
        write_atomically(folder.path / "student.pt", last)
    return None


def _check(loop: Loop) -> None:
    """Find out before hours of training what would stop the loop after them.

    Raises:
        ConfigError: The recipe of the student does not work.
        DataError: There is nothing to start from.
        TeacherError: There is no such teacher.
    """
    config, rounds = loop.config, range(loop.config.rounds)
    training_config(config, loop.folder, number=0, member=0, replay=())
    if not config.starts.path.exists():
        raise DataError(f"starts.path: no such file or folder: {config.starts.path}")
    if any(loop.folder.round(number).record("label") is None for number in rounds):
        load_teacher(config.teacher)


def _do_round(loop: Loop, number: int) -> str | None:
    """Do what is left of a round; return the signal that stopped its training."""
    config, here = loop.config, loop.folder.round(number)
    is_last = number == config.rounds
    if here.record("train") is None:
        loop.say(f"round {number}: training")
        stopped_by = train_round(loop, number, replay=_replay(loop, number))
        if stopped_by is not None:
            return stopped_by
        write_table(loop.folder, config.rounds)
    if not is_last or config.check_last:
        explore_round(loop, number)
    if not is_last:
        select_round(loop, number)
        label_round(loop, number)
    return None


def _replay(loop: Loop, number: int) -> list[tuple[Path, int]]:
    """Return the labelled sets of the rounds before, and how often they count."""
    rounds = [loop.folder.round(earlier) for earlier in range(number)]
    sets = [one.labelled for one in rounds if count(one.labelled)]
    n_old = len(loop.base.select("train") or loop.base.structures)
    n_new = sum(count(path) for path in sets)
    repeats = loop.config.mix.repeats_of(n_old, n_new)
    return [(path, repeats) for path in sets]
