"""docs/reliability.md, from the records of a soak."""

from pathlib import Path
from string import Template
from textwrap import fill

from crack_md.files import read_json, write_atomically
from tests.soak import dynamics, fuzz, kills, neighbors
from tests.soak.records import PACKAGES, ROOT, Record

TEMPLATE = Path(__file__).parent / "reliability.md"
PAGE = ROOT / "docs" / "reliability.md"


def write_page(folder: Path, page: Path = PAGE) -> None:
    """Write the page; all parts must have run."""
    parts = {name: read_json(folder / f"{name}.json") for name in TEXTS}
    checks = {"md": dynamics, "neighbors": neighbors, "fuzz": fuzz, "kills": kills}
    verdicts = {
        name: "held" if checks[name].passes(found) else "**did not hold**"
        for name, found in parts.items()
    }
    rows = [
        f"| {WHAT[name][0]} | {WHAT[name][1]} | {RESULTS[name](found)} "
        f"| {verdicts[name]} |"
        for name, found in parts.items()
    ]
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        rows="\n".join(rows),
        hours=f"{parts['md']['hours']:.1f}",
        versions=versions(parts),
        **{name: _wrapped(TEXTS[name](found)) for name, found in parts.items()},
    )
    write_atomically(page, text.encode())


def _wrapped(text: str) -> str:
    """Return a text whose first paragraph has lines of the width of other pages."""
    first, mark, rest = text.partition("\n")
    return fill(first, 92, break_long_words=False) + mark + rest


WHAT = {
    "md": (
        "dynamics",
        "`crack-md md slab.extxyz --ensemble nve`, interrupted in the end",
    ),
    "neighbors": ("neighbors", "random cells against a search of every image"),
    "fuzz": ("damaged files", "read by readers and commands in processes that may die"),
    "kills": ("kills", "commands killed at random moments and run again"),
}


def dynamics_result(found: Record) -> str:
    """Return growth of memory and drift of the energy."""
    return (
        f"{found['growth_MB']:+.1f} MB in {found['hours']:.1f} h, "
        f"{found['drift_meV_per_atom_ps']:.1e} meV/atom/ps"
    )


def neighbors_result(found: Record) -> str:
    """Return how many tables differ."""
    return f"{len(found['wrong'])} of {found['cases']:,} differ"


def fuzz_result(found: Record) -> str:
    """Return how many files ended otherwise than in one line."""
    return f"{len(found['faults'])} of {found['cases']:,} files end otherwise"


def kills_result(found: Record) -> str:
    """Return how many results differ."""
    done = found["commands"].values()
    unequal, rounds = (
        sum(len(one["unequal"]) for one in done),
        sum(one["rounds"] for one in done),
    )
    total = sum(one["kills"] for one in done)
    return f"{unequal} of {rounds} results differ, after {total} kills"


def dynamics_text(found: Record) -> str:
    """Return the paragraph about dynamics."""
    return (
        f"O on 3 × 3 × 5 Pt(111), {found['atoms']} atoms, the packaged student, "
        f"1 fs: {found['steps']:,} steps ({found['time_ps']:.1f} ps) at "
        f"{found['temperature_K']:.0f} K. Memory was {found['memory_MB']:.0f} MB, "
        f"{found['largest_MB']:.0f} MB at most, and grew by {found['growth_MB']:+.2f} "
        "MB over the run (line through all but its first tenth; the limit is "
        f"{dynamics.MOST_GROWTH_MB} MB). The total energy drifted by "
        f"{found['drift_meV_per_atom_ps']:.1e} meV/atom/ps (limit "
        f"{dynamics.MOST_DRIFT}) and scattered by {found['spread_meV_per_atom']:.1e} "
        "meV/atom around it."
    )


def neighbors_text(found: Record) -> str:
    """Return the paragraph about neighbors."""
    return (
        f"{found['cases']:,} cells of 1 to 11 atoms, skewed, turned, left-handed, open "
        "along any direction, on lattices where distances tie, and 100,000 cells away "
        f"from home, with both rules of neighbors: {found['pairs']:,} pairs, equal to "
        "the last shift and in order."
    )


def fuzz_text(found: Record) -> str:
    """Return the paragraph about damaged files."""
    rest = found["cases"] - found["read"] - found["refused"]
    faults = ", ".join(f"{one['kind']} {one['number']}" for one in found["faults"])
    return (
        f"{found['cases']:,} files: extended XYZ, trajectories, CIF, POSCAR, databases "
        "(SQLite, JSON, LMDB), models and recipes with flipped bits, cut ends, "
        "repeated parts, extreme numbers, wrong types, compressed and padded members. "
        f"{found['read']:,} were read all the same, {found['refused'] + rest:,} were "
        "refused by an error of the package or the exit code of a command; the largest "
        f"grew memory by {max(found['growth_MB'])} MB (limit {fuzz.MOST_GROWTH_MB}), "
        f"the slowest took {max(found['longest_s']):.0f} s of a processor (limit "
        f"{fuzz.MOST_SECONDS:.0f}). Faults: {faults or 'none'}."
    )


def kills_text(found: Record) -> str:
    """Return the table about kills."""
    rows = [
        f"| `{name}` | {one['kills']} | {one['rounds']} | {len(one['unequal'])} |"
        for name, one in found["commands"].items()
    ]
    head = [
        "SIGKILL (half of them), SIGTERM and SIGINT at moments drawn from the time "
        "that an undisturbed run takes; up to four for one output, then the same "
        "command to its end. Tables, trajectories, labels and weights must be equal "
        "bit by bit, "
        "and no file may be left over.",
        "",
        "| command | kills | outputs | unequal |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join([*head, *rows])


def versions(parts: dict[str, Record]) -> str:
    """Return what every part ran with."""
    lines = ["| part | date | commit | " + " | ".join(("Python", *PACKAGES)) + " |"]
    lines.append("|---|---|---|" + "---|" * (len(PACKAGES) + 1))
    for name, found in parts.items():
        about = found["circumstances"]
        commit = about["commit"] + (" with changes" if about["changed"] else "")
        cells = [about["date"], commit, about["python"], *(about[p] for p in PACKAGES)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    systems = {
        f"{one['circumstances']['system']}, {one['circumstances']['cores']} cores"
        for one in parts.values()
    }
    return "\n".join([*lines, "", "Machine: " + "; ".join(sorted(systems)) + "."])


RESULTS = {
    "md": dynamics_result,
    "neighbors": neighbors_result,
    "fuzz": fuzz_result,
    "kills": kills_result,
}
TEXTS = {
    "md": dynamics_text,
    "neighbors": neighbors_text,
    "fuzz": fuzz_text,
    "kills": kills_text,
}
