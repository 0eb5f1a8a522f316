"""Models at work: ASE calculators, batches of structures, dynamics of many replicas.

Names are loaded when they are first used: what needs no PyTorch does not load it.
Workflows import from the modules that do without, as `concurrent`.
"""

from typing import TYPE_CHECKING

from crack_md import load_lazily

if TYPE_CHECKING:
    from crack_md.calculators.batched import SeveralDevices
    from crack_md.calculators.concurrent import run_together
    from crack_md.calculators.crack import CrackCalculator
    from crack_md.calculators.evaluator import BatchEvaluator
    from crack_md.calculators.replicas.langevin import Langevin
    from crack_md.calculators.replicas.replicas import Replicas

__all__ = [
    "BatchEvaluator",
    "CrackCalculator",
    "Langevin",
    "Replicas",
    "SeveralDevices",
    "run_together",
]

__getattr__ = load_lazily(
    __name__,
    {
        "BatchEvaluator": "evaluator",
        "CrackCalculator": "crack",
        "Langevin": "replicas.langevin",
        "Replicas": "replicas.replicas",
        "SeveralDevices": "batched",
        "run_together": "concurrent",
    },
)
