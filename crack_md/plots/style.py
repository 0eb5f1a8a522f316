"""Style of all figures, and the HTML pages that hold them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
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
