"""Where the numbers come from: model, settings, input, versions, and the ranking."""

from collections.abc import Iterator, Mapping
from typing import Any

from crack_md.plots.screening.markup import Markup, join, table, tag
from crack_md.plots.screening.view import ReportView

LEFT_OUT = ("ranking",)
"""Shown elsewhere on the page."""
FIRST = ("model", "settings", "input", "pt111", "counts", "versions")


def draw_provenance(view: ReportView) -> Markup:
    """Return everything that summary.json says besides its table."""
    summary = view.screening.summary
    names = [name for name in FIRST if name in summary]
    names += [name for name in summary if name not in (*names, *LEFT_OUT)]
    grouped = [name for name in names if isinstance(summary[name], Mapping)]
    parts = [_part(name, summary[name]) for name in grouped]
    single = {name: summary[name] for name in names if name not in grouped}
    if single:
        parts.append(_part("run", single))
    if view.ranking is not None:
        record = {
            key: view.ranking.get(key)
            for key in ("settings", "calibrated_with", "rescored_with", "committee")
        }
        parts.append(_part("uncertainty", record))
    return tag("div", *parts, class_="columns")


def _part(name: str, content: Any) -> Markup:
    rows = list(_flat(content))
    return tag("div", tag("h3", name.replace("_", " ")), table(("", ""), rows))


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Markup]]:
    """Yield nested settings as one line each; what is empty is left out."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{prefix} · {key}" if prefix else str(key))
    elif content not in (None, "", [], ()):
        if isinstance(content, list | tuple):
            content = ", ".join(map(str, content))
        if isinstance(content, float):
            content = f"{content:.7g}"
        long = isinstance(content, str) and len(content) > 40 and " " not in content
        yield prefix, tag("code", content) if long else join([str(content)])
