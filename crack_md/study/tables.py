"""The tables of a study: Markdown to paste, CSV to compute with, JSON for all else."""

import csv
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from crack_md.files import read_json, write_text
from crack_md.study.plan import Plan, is_done
from crack_md.study.summary import (
    COLUMNS,
    COMPARED,
    Difference,
    Row,
    Spread,
    StudySummary,
    compare_spreads,
    number,
    summarize_study,
)

MAIN = (
    "n_weights",
    "embedding_mae",
    "embedding_cosine",
    "embedding_unexplained",
    "energy_mae_meV",
    "energy_mae_meV_per_atom",
    "force_mae_meV_per_A",
    "adsorption_mae_eV",
    "n_without_energy",
    "step_ms",
)
APART = (
    "unrelaxed_energy_mae_meV_per_atom",
    "unrelaxed_force_mae_meV_per_A",
    "relaxed_energy_mae_meV_per_atom",
    "relaxed_force_mae_meV_per_A",
    "teacher_energy_mae_meV_per_atom",
    "teacher_force_mae_meV_per_A",
    "n_own_labels",
    "n_quarantined",
)
NOTHING = "–"
BASELINES = {
    "energy_mae_meV": "mean_energy_baseline_meV",
    "energy_mae_meV_per_atom": "mean_energy_baseline_meV_per_atom",
    "force_mae_meV_per_A": "zero_force_baseline_meV_per_A",
}
"""What no model at all reaches, by the measure that it is compared with."""


def write_tables(plan: Plan) -> StudySummary:
    """Write table.md, table.csv, runs.csv and summary.json; return what they show."""
    summary = summarize_study(plan)
    folder = plan.study.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.md", markdown(summary))
    write_text(folder / "table.csv", rows_csv(summary))
    write_text(folder / "runs.csv", runs_csv(plan))
    write_text(folder / "summary.json", json.dumps(summary.as_dict(), indent=2) + "\n")
    return summary


def markdown(summary: StudySummary, *, width: int | None = None) -> str:
    """Return all tables of a study, ready to stand in a document.

    Args:
        summary: of the study.
        width: letters of a line that is read as it is, on a terminal; wider tables
            come in parts. None for a document, where lines may have any length.
    """
    parts = [f"## {summary.title}\n", _wrap(_legend(summary), width)]
    for budget in reversed(summary.budgets):  # the largest, usually the last, leads
        rows = summary.of_budget(budget)
        heading = f"### {budget.replace('-', ' ')}\n"
        parts.append(heading)
        parts += [_lines(_table(summary, rows, keys), width) for keys in (MAIN, APART)]
        if any(summary.minus_reference(row, key) for row in rows for key in COMPARED):
            parts.append(
                f"Minus {summary.reference}, with the 95 % interval of the mean:\n"
            )
            parts.append(_lines(_difference_table(summary, rows), width))
        parts += [_wrap(lines, width) for lines in _failures(rows)]
    return "\n".join(parts)


def rows_csv(summary: StudySummary) -> str:
    """Return one line per method and budget."""
    lines = []
    for row in summary.rows:
        line: dict[str, Any] = {
            "method": row.method,
            "budget": row.budget,
            "n_done": row.n_done,
            "n_planned": row.n_planned,
        }
        for key in COLUMNS:
            spread = row.columns.get(key)
            line[f"{key}_mean"] = None if spread is None else spread.mean
            line[f"{key}_std"] = None if spread is None else spread.std
        lines.append(line)
    return _csv(lines)


def runs_csv(plan: Plan) -> str:
    """Return one line per run, whatever became of it."""
    lines = []
    for run in plan.students:
        result = read_json(run.result_file, may_miss=True) if is_done(run) else None
        failure = None if result else read_json(run.error_file, may_miss=True)
        status = "done" if result else "failed" if failure else "missing"
        lines.append(
            {
                "method": run.method,
                "budget": run.budget,
                "seed": run.seed,
                "status": status,
                "error": failure["error"] if failure else "",
                **{k: number(result or {}, c.place) for k, c in COLUMNS.items()},
                "losses": json.dumps(result["losses"]) if result else "",
            }
        )
    return _csv(lines)


def _legend(summary: StudySummary) -> str:
    alike = "" if _has_relaxed(summary.rows) else ", none of them relaxed"
    return (
        f"Errors on {summary.evaluated_on}{alike}; mean ± standard deviation over "
        "seeds. In bold the best mean and what ties with it: what differs by less than "
        "the 95 % interval of the difference, taken seed by seed where two seeds or "
        "more are shared, else by Welch's t; with one seed nothing is bold. Embedding "
        "errors are those of the best linear map from the student's features to the "
        "teacher's (shifted to mean 0, divided by their spread), fitted on training "
        "frames in the same way for every row; unexplained is what it misses of their "
        f"variance within elements.{_legend_of_extras(summary.rows)}\n"
    )


def _legend_of_extras(rows: Sequence[Row]) -> str:
    known = {key for row in rows for key in row.columns}
    parts = []
    if "adsorption_mae_eV" in known:
        parts.append(
            " ΔE relaxed is the error of adsorption energies where the student relaxes "
            "the best site of every slab on; without it are slabs where that does not "
            "settle, or the adsorbate leaves."
        )
    if "n_own_labels" in known:
        parts.append(
            " Own labels are frames that the student came to by itself; they count "
            "among the frames of its budget, and quarantined ones had diverged."
        )
    return "".join(parts)


def _table(
    summary: StudySummary, rows: Sequence[Row], keys: Sequence[str]
) -> list[Sequence[str]]:
    shown = [key for key in keys if any(key in row.columns for row in rows)]
    if not _has_relaxed(rows):  # unrelaxed frames are all frames
        shown = [key for key in shown if not key.startswith("unrelaxed")]
    best = {key: _best(rows, key) for key in shown}
    reference = next((r for r in rows if r.method == summary.reference), None)
    header = ["method", "runs", *(COLUMNS[key].title for key in shown)]
    body = []
    for row in rows:
        cells = [
            _cell(
                row.columns.get(key), COLUMNS[key].digits, bold=row.method in best[key]
            )
            + (_ratio(row, reference) if key == "step_ms" else "")
            for key in shown
        ]
        body.append([row.method, f"{row.n_done}/{row.n_planned}", *cells])
    return [header, *_anchors(summary, shown), *body]


def _anchors(summary: StudySummary, keys: Sequence[str]) -> list[list[str]]:
    """Return the rows of what no student is: the teacher, and no model at all."""
    rows = []
    if summary.teacher is not None:
        rows.append(["*teacher*", "", *(_place(summary.teacher, key) for key in keys)])
    if summary.baselines is not None:
        cells = []
        for key in keys:
            group = next((g for g in ("relaxed", "unrelaxed") if key.startswith(g)), "")
            name = BASELINES.get(key.removeprefix(f"{group}_"))
            value = number(summary.baselines, f"{group or 'all'}.{name}")
            cells.append(_format(value, COLUMNS[key].digits))
        rows.append(["*zero forces, mean energy*", "", *cells])
    return rows


def _difference_table(
    summary: StudySummary, rows: Sequence[Row]
) -> list[Sequence[str]]:
    keys = [k for k in COMPARED if any(summary.minus_reference(row, k) for row in rows)]
    if not _has_relaxed(rows):
        keys = [key for key in keys if not key.startswith("unrelaxed")]
    header = ["method", *(f"Δ {COLUMNS[key].title}" for key in keys)]
    body = [
        [
            row.method,
            *(
                _difference(summary.minus_reference(row, key), COLUMNS[key].digits)
                for key in keys
            ),
        ]
        for row in rows
        if row.method != summary.reference
    ]
    return [header, *body]


def _has_relaxed(rows: Sequence[Row]) -> bool:
    keys = {key for row in rows for key in row.columns}
    return not keys or any(key.startswith("relaxed") for key in keys)


def _failures(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"- {row.method}, seed {seed} failed: {error}"
        for row in rows
        for seed, error in row.errors.items()
    ]
    return ["\n".join(lines) + "\n"] if lines else []


def _best(rows: Sequence[Row], key: str) -> set[str]:
    """Return the method with the best mean and those that tie with it."""
    contest = COLUMNS[key].best
    spreads = {row.method: row.columns[key] for row in rows if key in row.columns}
    if not contest or len(spreads) < 2:
        return set()
    choose = min if contest == "low" else max
    best = choose(spreads, key=lambda name: spreads[name].mean)
    behind = {
        name: compare_spreads(spread, spreads[best])
        for name, spread in spreads.items()
        if name != best
    }
    if all(difference.half_width is None for difference in behind.values()):
        return set()
    return {best, *(name for name, one in behind.items() if one.is_tie)}


def _cell(spread: Spread | None, digits: int, *, bold: bool) -> str:
    if spread is None:
        return NOTHING
    text = _format(spread.mean, digits)
    text = f"**{text}**" if bold else text
    return text if not spread.std else f"{text} ± {_format(spread.std, digits)}"


def _difference(difference: Difference | None, digits: int) -> str:
    if difference is None:
        return NOTHING
    text = _format(difference.mean, digits, sign=True)
    if difference.half_width is None:
        return text
    text = f"{text} ± {_format(difference.half_width, digits)}"
    return f"{text} (tie)" if difference.is_tie else text


def _ratio(row: Row, reference: Row | None) -> str:
    if reference is None or not {"step_ms"} <= row.columns.keys() & reference.columns:
        return ""
    ratio = row.columns["step_ms"].mean / reference.columns["step_ms"].mean
    return f" ({ratio:.2f}×)"


def _place(result: Mapping[str, Any], key: str) -> str:
    return _format(number(result, COLUMNS[key].place), COLUMNS[key].digits)


def _format(value: float | None, digits: int, *, sign: bool = False) -> str:
    return NOTHING if value is None else f"{value:{'+' if sign else ''},.{digits}f}"


def _lines(table: Sequence[Sequence[str]], width: int | None) -> str:
    """Return a table as Markdown, in parts with the first column in each."""
    header, *body = table
    rule = ["---", *["---:"] * (len(header) - 1)]
    if width is None:
        return _joined([header, rule, *body])
    columns = [_padded(column) for column in zip(header, rule, *body, strict=True)]
    parts = [columns[:1]]
    for column in columns[1:]:
        taken = sum(len(one[0]) + len(" | ") for one in (*parts[-1], column))
        if len(parts[-1]) > 1 and taken + 1 > width:
            parts.append(columns[:1])
        parts[-1] = [*parts[-1], column]
    return "\n".join(_joined(list(zip(*part, strict=True))) for part in parts)


def _padded(column: Sequence[str]) -> list[str]:
    """Return cells of one width: flush left under ``---``, right under ``---:``."""
    size = max(map(len, column))
    if column[1] == "---":
        return [cell.ljust(size, "-" if cell == "---" else " ") for cell in column]
    return [cell.rjust(size, "-" if cell == "---:" else " ") for cell in column]


def _joined(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _wrap(text: str, width: int | None) -> str:
    if width is None:
        return text
    lines = [textwrap.wrap(line, width) for line in text.splitlines()]
    return "".join(f"{line}\n" for wrapped in lines for line in wrapped)


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
