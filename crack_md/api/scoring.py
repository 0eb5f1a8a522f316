"""``score``: a model on published adsorption energies, as ``crack-md score`` does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.calculators.calculator import BaseCalculator

from crack_md.api.inputs import describe_calculator, describe_input
from crack_md.files import file_sha256
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.notebook import TableResult
from crack_md.workflows.scoring.reactions import read_reactions
from crack_md.workflows.scoring.score import (
    REPEATS,
    ReactionOutcome,
    Score,
    Scorer,
    open_outcomes,
    row_of,
    score_outcomes,
    write_scores,
)


@dataclass(frozen=True, eq=False)
class Scores(TableResult):
    """A model on a set of reactions."""

    score: Score
    outcomes: tuple[ReactionOutcome, ...]
    summary: Mapping[str, Any]
    """What summary.json holds."""
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of scores.csv, unrounded."""
        return [row_of(outcome) for outcome in self.outcomes]


def score(
    reactions: str | Path,
    calculator: BaseCalculator,
    *,
    out: str | Path = "score-results",
    repeats: int = REPEATS,
    model: ModelInfo | None = None,
    report: Report | None = None,
) -> Scores:
    """Return how far a model is from DFT on adsorption reactions, as CatBench counts.

    Writes scores.csv (a row per reaction) and summary.json; a stopped run goes on.

    Args:
        reactions: a JSON file of CatBench: ``NAME_adsorption.json``.
        calculator: any ASE calculator.
        out: folder for results.
        repeats: passes over each reaction; 1 looks for no failure to reproduce.
        model: what the calculator is; asked of it where left out. Gas energies that it
            brings are taken instead of those of the molecules in the file.
        report: called with a `ProgressEvent` after every reaction.

    Raises:
        DataError: the file holds no reactions, or ``out`` cannot be used.
    """
    path, folder = Path(reactions), Path(out)
    found, unreadable = read_reactions(path)
    info = model or describe_calculator(calculator)
    scorer = Scorer(calculator, info, repeats=repeats)
    conditions = {
        "command": "score",
        "reactions_sha256": file_sha256(path),
        "model_sha256": info.sha256,
        "gas_energies_eV": dict(info.gas_references),
        "repeats": repeats,
    }
    outcomes = [
        ReactionOutcome(name, "", float("nan"), None, "failed", error=error)
        for name, error in unreadable.items()
    ]
    with open_outcomes(folder, conditions) as store:
        for done, reaction in enumerate(found, start=1):
            known = store.known.get(reaction.name)
            outcome = known or scorer.outcome(reaction)
            if known is None:
                store.put(outcome)
            outcomes.append(outcome)
            if report is not None:
                event = ProgressEvent(done, len(found), reaction.name, outcome.category)
                report(event._replace(reused=known is not None))
        total = score_outcomes(outcomes)
        summary = write_scores(
            outcomes,
            total,
            folder,
            model=info,
            repeats=repeats,
            input=describe_input(path, len(found)),
        )
    return Scores(total, tuple(outcomes), summary, folder)
