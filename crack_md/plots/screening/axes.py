"""Axes of an SVG chart: data to pixels, ticks, labels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from crack_md.plots.screening.markup import Markup, join, tag


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
