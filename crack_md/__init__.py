"""crack-md: small machine-learning force fields distilled from large ones.

    from crack_md import CrackCalculator, screen
    atoms.calc = CrackCalculator()
    result = screen("surfaces.db", CrackCalculator(), adsorbates=["O"], out="results")

Names are loaded when they are first used, so that the command line starts at once.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from crack_md.errors import CrackError

if TYPE_CHECKING:
    from crack_md.api.runs import check_sampling, compute_phonons, relax, run_md, train
    from crack_md.api.scoring import score
    from crack_md.api.screening import screen
    from crack_md.api.surfaces import make_surfaces
    from crack_md.bench.doctor import check_installation
    from crack_md.calculators import CrackCalculator
    from crack_md.models.checkpoint import load_model

__version__ = "1.0.0"
__all__ = [
    "CrackCalculator",
    "CrackError",
    "__version__",
    "check_installation",
    "check_sampling",
    "compute_phonons",
    "load_model",
    "make_surfaces",
    "relax",
    "run_md",
    "score",
    "screen",
    "train",
]


def load_lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package that loads names when first used.

    Args:
        package: its ``__name__``.
        homes: the module of every name, as seen from the package.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load


__getattr__ = load_lazily(
    __name__,
    {
        "CrackCalculator": "calculators",
        "check_installation": "bench.doctor",
        "check_sampling": "api.runs",
        "compute_phonons": "api.runs",
        "load_model": "models.checkpoint",
        "make_surfaces": "api.surfaces",
        "relax": "api.runs",
        "run_md": "api.runs",
        "score": "api.scoring",
        "screen": "api.screening",
        "train": "api.runs",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
