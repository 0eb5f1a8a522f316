"""One look for all figures: quiet axes, readable at column width, safe for all eyes."""

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#22303c"
MUTED = "#7b8794"
GRID = "#e4e8ec"
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
