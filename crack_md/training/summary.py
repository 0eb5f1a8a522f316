"""How a run ended."""

from dataclasses import dataclass

from crack_md.training.clock import Throughput
from crack_md.training.evaluate import Evaluation


@dataclass(frozen=True)
class TrainingSummary:
    """How a run ended."""

    step: int
    elapsed_s: float
    stopped_by: str | None
    """Name of the signal that ended the run early."""
    validation: Evaluation | None
    throughput: Throughput | None
    """Of all starts of the run together; None before the first step."""
