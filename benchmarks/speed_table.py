"""Tables of what was measured, as Markdown for people and for docs/performance.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Record
from benchmarks.work import WORKS
from crack_md.errors import DataError

HEADS = {
    "single": "One structure, through the ASE calculator",
    "network": "The model alone, its neighbors given",
    "batch": "Many structures in as few passes as are fast",
    "md": "A step of NVE molecular dynamics in ASE (mean)",
}
COLUMNS = (
    "system",
    "atoms",
    "engine",
    "ms",
    "quickest–slowest",
    "× reference",
    "atoms·steps/s",
    "ns/day at 1 fs",
    "peak MB",
    "GFLOP",
    "of GEMM rate",
    "of bandwidth",
)
N_LEFT = 3
"""Columns that are words; numbers stand right."""


def markdown(content: Record) -> str:
    """Return all tables of one run."""
    parts = [_machine(content)]
    for work in WORKS:
        rows = [row for row in content["rows"] if row["work"] == work]
        if rows:
            lines = [_line(row, content) for row in rows]
            parts.append(f"### {HEADS[work]}\n\n{_table(COLUMNS, lines, N_LEFT)}")
    parts += [_cold_starts(content), _agreement(content)]
    return "\n\n".join(part for part in parts if part)


def write_section(path: Path, text: str, *, name: str) -> None:
    """Put text between two marks of a document, in place of what was there.

    Args:
        path: The document.
        text: Markdown.
        name: Of the section: its marks are ``<!-- name: begin -->`` and ``end``.

    Raises:
        DataError: The document has no such marks.
    """
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    document = path.read_text(encoding="utf-8")
    before, begin, rest = document.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise DataError(f"{path} has no lines '{first}' and '{last}' to write between")
    temporary = path.with_suffix(path.suffix + ".part")
    content = f"{before}{first}\n\n{text}\n\n{last}{after}"
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)


def _machine(content: Record) -> str:
    machine, settings = content["machine"], content["settings"]
    rates = ", ".join(
        f"{rate['flops_per_s'] / 1e9:,.0f} GFLOP/s {dtype}"
        for dtype, rate in content["rates"].items()
    )
    copies = [rate["bytes_per_s"] / 1e9 for rate in content["rates"].values()]
    bandwidth = f", {max(copies):.1f} GB/s" if copies else ""
    memory = settings["memory_limit"]
    limit = f" A worker may hold {memory / 1e9:.1f} GB." if memory else ""
    gpu = f"{machine['gpu']} (driver {machine['driver']}), " if "gpu" in machine else ""
    return (
        f"{content['date'][:10]}, {gpu}{machine['processor']}, "
        f"{machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_GB']:.0f} GB, torch {machine['torch']}, Python "
        f"{machine['python']}, {settings['rounds']} rounds. The machine reaches "
        f"{rates or 'rates that were not measured'}{bandwidth}; its load was "
        f"{machine['load_at_start']} before the run.{limit}\n\n    {content['command']}"
    )


def _line(row: Record, content: Record) -> list[str]:
    engine = content["engines"][row["engine"]]["title"]
    count = row["n_structures"]
    atoms = f"{count} × {row['n_atoms'] // count}" if count > 1 else f"{row['n_atoms']}"
    start = [row["system"], atoms, engine]
    if row["not_run"]:
        cells = [f"not run: {row['not_run']}"]
        return start + cells + [""] * (len(COLUMNS) - len(start) - 1)
    seconds = row["mean_s"] if row["work"] == "md" else row["median_s"]
    ratio = row["ratio"]
    return [
        *start,
        f"{1e3 * seconds:,.1f}",
        f"{1e3 * row['low_s']:,.1f}–{1e3 * row['high_s']:,.1f}",
        f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"
        if ratio
        else "",
        f"{row['atom_steps_per_s']:,.0f}",
        _number(row["ns_per_day"], ".3f"),
        f"{row['peak_MB']:,.0f}",
        _number(row.get("GFLOP"), ",.1f"),
        _percent(row.get("of_gemm_rate")),
        _percent(row.get("of_bandwidth")),
    ]


def _cold_starts(content: Record) -> str:
    lines = []
    for engine in content["engines"].values():
        times = engine["cold_start"]
        versions = ", ".join(
            f"{name} {number}" for name, number in engine.get("versions", {}).items()
        )
        if engine["not_run"] or "first_s" not in times:
            reason = engine["not_run"] or "it was not tried"
            lines.append([engine["title"], versions, f"not run: {reason}", "", "", ""])
            continue
        parts = [times["import_s"], times["load_s"], times["first_s"]]
        lines.append(
            [
                engine["title"],
                versions,
                f"{engine['weights']:,}",
                *(f"{value:.1f}" for value in parts),
                f"{sum(parts):.1f}",
            ]
        )
    head = ("engine", "versions", "weights", "libraries s", "model s", "first call s")
    return "### Cold start\n\n" + _table((*head, "all s"), lines, 2)


def _agreement(content: Record) -> str:
    titles = {name: one["title"] for name, one in content["engines"].items()}
    lines = [
        [
            titles[one["engine"]],
            titles[one["reference"]],
            f"{one['energy_meV_per_atom']:.1e}",
            f"{one['force_eV_per_A']:.1e}",
            f"{one['largest_force_eV_per_A']:.1e}",
        ]
        for one in content["agreement"]
    ]
    if not lines:
        return ""
    head = (
        "engine",
        "against",
        "energy, meV/atom",
        "largest difference of forces, eV/Å",
        "largest force, eV/Å",
    )
    text = "### Same weights, same answer?\n\n"
    return text + _table(head, lines, 2)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], n_left: int) -> str:
    rule = ["---" if place < n_left else "---:" for place in range(len(head))]
    rows = [head, rule, *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"
