"""crack-md: small machine-learning force fields distilled from large ones.

    from crack_md import CrackCalculator
    atoms.calc = CrackCalculator()

Names are loaded when they are first used, so that the command line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crack_md.errors import CrackError

if TYPE_CHECKING:
    from crack_md.calculators import CrackCalculator
    from crack_md.models.checkpoint import load_model

__version__ = "0.1.0"
__all__ = ["CrackCalculator", "CrackError", "__version__", "load_model"]

_HOMES = {
    "CrackCalculator": "crack_md.calculators",
    "load_model": "crack_md.models.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'crack_md' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
