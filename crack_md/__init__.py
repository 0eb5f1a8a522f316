"""crack-md: small machine-learning force fields distilled from large ones.

    from crack_md import CrackCalculator, screen
    atoms.calc = CrackCalculator()
    result = screen("surfaces.db", CrackCalculator(), adsorbates=["O"], out="results")

Names are loaded when they are first used, so that the command line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crack_md.errors import CrackError

if TYPE_CHECKING:
    from crack_md.api.runs import check_sampling, compute_phonons, relax, run_md, train
    from crack_md.api.screening import screen
    from crack_md.calculators import CrackCalculator
    from crack_md.models.checkpoint import load_model

__version__ = "0.1.0"
__all__ = [
    "CrackCalculator",
    "CrackError",
    "__version__",
    "check_sampling",
    "compute_phonons",
    "load_model",
    "relax",
    "run_md",
    "screen",
    "train",
]

_HOMES = {
    "CrackCalculator": "crack_md.calculators",
    "check_sampling": "crack_md.api.runs",
    "compute_phonons": "crack_md.api.runs",
    "load_model": "crack_md.models.checkpoint",
    "relax": "crack_md.api.runs",
    "run_md": "crack_md.api.runs",
    "screen": "crack_md.api.screening",
    "train": "crack_md.api.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'crack_md' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
