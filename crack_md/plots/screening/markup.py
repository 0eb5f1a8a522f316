"""HTML and SVG from Python, and the axes of SVG charts; text is escaped."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Axes:
    """A rectangle of pixels and the ranges of data that it shows."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Return the pixel of a value, from the left."""
        low, high = self.x_range
        return self.left + self.width * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Return the pixel of a value, from the top."""
        low, high = self.y_range
        return self.top + self.height * (high - value) / (high - low)

    @property
    def bottom(self) -> float:
        """Return the pixel of the lower edge."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """Return the pixel of the right edge."""
        return self.left + self.width

    def grid(self, x_label: str, y_label: str) -> Markup:
        """Return ticks, grid lines and the names of both axes."""
        vertical = join(
            tag(
                "g",
                line(self.x(value), self.top, self.x(value), self.bottom, "grid"),
                text(self.x(value), self.bottom + 18, name, "tick", anchor="middle"),
            )
            for value, name in ticks(self.x_range, self.width / 90)
        )
        horizontal = join(
            tag(
                "g",
                line(self.left, self.y(value), self.right, self.y(value), "grid"),
                text(self.left - 8, self.y(value) + 4, name, "tick", anchor="end"),
            )
            for value, name in ticks(self.y_range, self.height / 55)
        )
        return join(
            [
                tag("g", vertical, horizontal, class_="ticks"),
                text(
                    self.left + self.width / 2,
                    self.bottom + 40,
                    x_label,
                    "axis",
                    anchor="middle",
                ),
                self.upright(self.left - 46, y_label),
            ]
        )

    def upright(self, x: float, name: str, *, turn: int = -90) -> Markup:
        """Return the name of a vertical axis, halfway up."""
        middle = self.top + self.height / 2
        place = f"translate({x:.0f} {middle:.0f}) rotate({turn})"
        return tag("text", name, class_="axis", text_anchor="middle", transform=place)


def ticks(shown: tuple[float, float], about: float) -> Iterator[tuple[float, str]]:
    """Yield round numbers inside a range, and how they are written."""
    low, high = shown
    rough = (high - low) / max(about, 1.0)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    for count in range(
        math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1
    ):
        value = count * step
        yield value, f"{value + 0.0:.{digits}f}".replace("-", "−")


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(
    x: float, y: float, content: str, class_: str, *, anchor: str | None = None
) -> Markup:
    """Return a piece of text."""
    return tag("text", content, x=x, y=y, class_=class_, text_anchor=anchor)
