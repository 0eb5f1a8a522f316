"""HTML and SVG from Python, where all text is escaped unless it is markup already."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


class Markup(str):
    """Text that needs no escaping."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: Any) -> Markup:
    """Return an element; ``class_`` is its class, ``data_x`` its ``data-x``.

    Attributes that are None or False are left out; True is one without a value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            content = "" if value is True else escape(_text(value))
            words.append(f'{key.rstrip("_").replace("_", "-")}="{content}"')
    opened = " ".join(words)
    if name in ("img", "input", "br"):
        return Markup(f"<{opened}>")
    return Markup(f"<{opened}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Return parts one behind the other, text escaped."""
    return Markup(
        "".join(
            part if isinstance(part, Markup) else escape(_text(part), quote=False)
            for part in parts
        )
    )


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Sequence[int] = (),
) -> Markup:
    """Return a table; columns whose places are in ``numbers`` align to the right."""

    def cells(name: str, values: Sequence[object]) -> Markup:
        return join(
            tag(name, value, class_="number" if place in numbers else None)
            for place, value in enumerate(values)
        )

    head = tag("thead", tag("tr", cells("th", header)))
    body = tag("tbody", *(tag("tr", cells("td", row)) for row in rows))
    return tag("div", tag("table", head, body), class_="scroll")


def _text(value: object) -> str:
    """Return a value as text; coordinates to a hundredth of a pixel."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
