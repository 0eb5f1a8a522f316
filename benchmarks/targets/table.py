"""The target table as text: lines for a terminal, Markdown for a model card."""

from typing import Any

Record = dict[str, Any]
VERDICTS = {True: "reached", False: "**not reached**", None: ""}


def printed_lines(name: str, row: Record) -> list[str]:
    """Return one line per check of a row."""
    lines = []
    for check in row["checks"]:
        verdict = VERDICTS[check["reached"]].replace("*", "")
        target = target_text(check)
        what = check["what"].replace("\\*", "*")
        lines.append(
            f"{name:16} {what:52} {value_text(check):>22}  {target:14} {verdict}"
        )
    lines.append(f"{name:16} {row['seconds']} s")
    return lines


def card_table(record: Record) -> str:
    """Return the table of a model card, with what it was measured on and how."""
    lines = ["| what | measured | target | |", "|---|---|---|---|"]
    for row in record["rows"].values():
        for check in row["checks"]:
            cells = [
                f"{check['what']} ({row['against']})",
                value_text(check),
                target_text(check),
                VERDICTS[check["reached"]],
            ]
            lines.append(f"| {' | '.join(cells)} |")
    source = (
        f", labels by `{shown_source(record['source'])}`" if record["source"] else ""
    )
    head = (
        f"`{record['model_sha256'][:12]}`{source}; {record['date'][:10]}, "
        f"{record['processor']}. `python benchmarks/packaged_student.py` measures and "
        "writes this table."
    )
    return "\n".join([head, "", *lines])


def shown_source(spec: str) -> str:
    """Return a teacher's text without the folder that its file lies in."""
    kind, colon, path = spec.partition(":")
    return f"{kind}:{path.rpartition('/')[2]}" if colon else kind.rpartition("/")[2]


def value_text(check: Record) -> str:
    """Return a measured number with its unit, and of how many it is a mean."""
    if check["value"] is None:
        return "not known to the model"
    value = check["value"]
    number = f"{value:.0f}" if float(value).is_integer() else _digits(value)
    count = f" of {check['n']}" if check["n"] is not None else ""
    unit = f" {check['unit']}" if check["unit"] else ""
    if check["n"] is not None and unit:
        return f"{number}{unit} (n {check['n']})"
    return f"{number}{unit}{count}"


def target_text(check: Record) -> str:
    """Return a target with its direction, or nothing."""
    if check["target"] is None:
        return ""
    unit = f" {check['unit']}" if check["unit"] else ""
    return f"{'≥' if check['at_least'] else '≤'} {check['target']:g}{unit}"


def _digits(value: float) -> str:
    """Return three decimals below ten, one above, two digits of small numbers."""
    if 0 < abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
