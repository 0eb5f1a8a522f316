"""Figures of matplotlib as SVG inside a page: names of parts that its script finds."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

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
