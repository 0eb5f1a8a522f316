"""Keeps the outcomes of a scoring: a line as soon as it is there, tables at the end."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crack_md.errors import DataError
from crack_md.files import (
    claim_folder,
    csv_bytes,
    keep_conditions,
    package_versions,
    write_atomically,
    write_json,
)
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.scoring.score import Outcome, Score

KEPT = "scores.jsonl"


class OutcomeStore:
    """What a folder holds of one scoring.

    Args:
        folder: claimed by `open_outcomes`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / KEPT
        self.known = {each.name: each for each in _read(self.path)}

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome for good.

        Raises:
            DataError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # a newline first parts it from half a line of a killed run
                file.write("\n" + json.dumps(asdict(outcome)) + "\n")
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"cannot write '{self.path}': {reason}") from error
        self.known[outcome.name] = outcome


def _read(path: Path) -> Iterator[Outcome]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield Outcome(**json.loads(line))
        except (ValueError, TypeError):  # the last line of a run that was killed
            continue


@contextmanager
def open_outcomes(
    folder: Path, conditions: Mapping[str, Any]
) -> Iterator[OutcomeStore]:
    """Give what a folder holds to one run at a time.

    Args:
        folder: of results.
        conditions: what decides the outcomes, ready for JSON.

    Raises:
        DataError: the folder is in use, or holds outcomes of other conditions.
    """
    with claim_folder(folder):
        keep_conditions(folder, conditions, has_results=(folder / KEPT).exists())
        yield OutcomeStore(folder)


def write_scores(
    outcomes: Sequence[Outcome],
    score: Score,
    folder: Path,
    *,
    model: ModelInfo,
    **provenance: Any,
) -> dict[str, Any]:
    """Write scores.csv and summary.json; return the latter.

    Raises:
        DataError: a file cannot be written.
    """
    rows = [row_of(outcome) for outcome in outcomes]
    write_atomically(folder / "scores.csv", csv_bytes(rows, decimals=4))
    summary = {
        "line": score.line,
        **asdict(score),
        "model": {"name": model.name, "sha256": model.sha256},
        "gas_energies_eV": dict(model.gas_references),
        **provenance,
        "versions": package_versions(),
    }
    write_json(folder / "summary.json", summary)
    return summary


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as a row of scores.csv."""
    return {
        "reaction": outcome.name,
        "adsorbate": outcome.adsorbate,
        "category": outcome.category,
        "dE_dft_eV": None if math.isnan(outcome.dft_eV) else outcome.dft_eV,
        "dE_eV": outcome.dE_eV,
        "error_eV": None if outcome.dE_eV is None else outcome.deviation,
        "moved_A": outcome.moved_A,
        "bond_change": outcome.bond_change,
        "spread_eV": outcome.spread_eV,
        "error": outcome.error,
    }
