"""Style of all figures, their SVG with names for scripts, and pages around them."""

import base64
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from crack_md.errors import DataError

INK = "#22303c"
MUTED = "#7b8794"
GRID = "#e4e8ec"
FAINT = "#c3cbd2"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
"""Okabe-Ito: told apart with every common color vision."""

_RC: Mapping[Any, Any] = MappingProxyType(
    {
        "font.family": "DejaVu Sans",
        "font.size": 10.0,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "savefig.facecolor": "white",
    }
)


def style() -> Any:
    """Return a context in which figures take this look; global settings stay put."""
    return mpl.rc_context(dict(_RC))


def png(figure: Figure, *, dpi: int = 200) -> bytes:
    """Return a figure as the content of a PNG file, without a time stamp."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


PAGE = "report.html"


@dataclass(frozen=True)
class PageSection:
    """One part of the page: text, a table, a figure, or some of them."""

    title: str
    text: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    figure: Figure | None = None

    @property
    def anchor(self) -> str:
        """Return the name of the part, for links and file names."""
        return self.title.lower().replace(" ", "-")


def write_page(
    folder: Path,
    sections: Sequence[PageSection],
    *,
    title: str,
    subtitle: str,
    option: str,
) -> Path:
    """Write ``report.html`` and its figures as PNG files; return the page.

    Args:
        folder: made if it is not there.
        sections: from top to bottom.
        title: above them.
        subtitle: below the title.
        option: of the command line, that names the folder.

    Raises:
        DataError: The folder cannot be written.
    """
    from jinja2 import Environment

    images = write_figures(folder, sections, option=option)
    template = files("crack_md.plots").joinpath("templates/page.html")
    page = Environment(autoescape=True).from_string(template.read_text("utf-8"))
    html = page.render(
        title=title,
        subtitle=subtitle,
        sections=[
            {
                "anchor": section.anchor,
                "title": section.title,
                "text": section.text,
                "header": section.header,
                "rows": section.rows,
                "width": _width(section.figure),
                "image": base64.b64encode(images[section.anchor]).decode()
                if section.anchor in images
                else "",
            }
            for section in sections
        ],
    )
    _write(folder / PAGE, html.encode(), option)
    return folder / PAGE


def write_figures(
    folder: Path, sections: Sequence[PageSection], *, option: str
) -> dict[str, bytes]:
    """Write the figures as PNG files; return their content by the anchor of the part.

    Raises:
        DataError: The folder cannot be written.
    """
    images = {s.anchor: png(s.figure) for s in sections if s.figure is not None}
    for name, image in images.items():
        _write(folder / f"{name}.png", image, option)
    return images


def _width(figure: Figure | None) -> int:
    """Return the width in pixels at which letters have the size of the text."""
    return 0 if figure is None else round(100 * figure.get_size_inches()[0])


def _write(path: Path, content: bytes, option: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise DataError(
            f"{path.parent}: cannot be written ({error.strerror}); choose another "
            f"{option}"
        ) from None


SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
POINTS_PER_INCH = 72
"""Resolution of SVG files by matplotlib; figures drawn with it keep their pixels."""


def as_svg(figure: Figure, *, name: str, label: str) -> ET.Element:
    """Return a figure as SVG whose ids begin with a name, for a page with several.

    Text stays text, in the font of the page.

    Args:
        figure: parts with a ``gid`` keep it as their id, behind the name and a hyphen.
        name: id of the drawing.
        label: what readers of the screen are told.
    """
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "crack-md"}):
        figure.savefig(
            buffer, format="svg", dpi=POINTS_PER_INCH, metadata={"Date": None}
        )
    drawing = ET.fromstring(buffer.getvalue())
    for part in list(drawing):
        # what is said of the file, and a style that would hold for the whole page
        if part.tag == f"{{{SVG}}}metadata" or part.find(f"{{{SVG}}}style") is not None:
            drawing.remove(part)
    for size in ("width", "height"):
        del drawing.attrib[size]
    for part in drawing.iter():
        for key, value in list(part.attrib.items()):
            if key == "id":
                part.set(key, f"{name}-{value}")
            elif key == f"{{{XLINK}}}href":
                part.set("href", value.replace("#", f"#{name}-"))
            elif key == "clip-path":
                part.set(key, value.replace("#", f"#{name}-"))
            elif key == "style":
                part.set(key, re.sub(r"font-family: [^;]*; ", "", value))
        part.attrib.pop(f"{{{XLINK}}}href", None)
    drawing.attrib |= {"id": name, "role": "img", "aria-label": label}
    return drawing


def part_of(drawing: ET.Element, gid: str) -> ET.Element | None:
    """Return the part that had a ``gid``, or None where nothing was drawn for it."""
    wanted = f"{drawing.get('id')}-{gid}"
    return next((part for part in drawing.iter() if part.get("id") == wanted), None)


def marks_of(drawing: ET.Element, gid: str) -> Iterator[ET.Element]:
    """Yield what was drawn for each value of a part: its markers, or else its lines."""
    part = part_of(drawing, gid)
    if part is None:
        return
    uses = list(part.iter(f"{{{SVG}}}use"))
    yield from uses or part.iter(f"{{{SVG}}}path")


def as_markup(drawing: ET.Element) -> Markup:
    """Return a drawing as text for a page."""
    ET.register_namespace("", SVG)
    return Markup(ET.tostring(drawing, encoding="unicode"))
