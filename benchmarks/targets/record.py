"""What a row of the target table says, and what it is measured with."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ase.calculators.calculator import BaseCalculator

from benchmarks import adsorption_values, dft_sets
from benchmarks.adsorption_values import Value
from benchmarks.dft_sets import Key, Pair
from benchmarks.models import benchmark_potential, named_potential
from crack_md.errors import ConfigError
from crack_md.workflows.model_info import ModelInfo

Details = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One number beside its target."""

    what: str
    value: float | None
    """None where the model cannot say: it does not know an element."""
    unit: str = ""
    target: float | None = None
    at_least: bool = False
    """Whether the target is the smallest value that will do, not the largest."""
    n: int | None = None
    """Of how many the value is a mean."""

    @property
    def reached(self) -> bool | None:
        """Return whether the target is reached; None without one."""
        if self.target is None:
            return None
        if self.value is None:
            return False
        if self.at_least:
            return self.value >= self.target
        return abs(self.value) <= self.target

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers, for JSON."""
        return {**asdict(self), "reached": self.reached}


@dataclass(frozen=True)
class Subjects:
    """The model that is measured, what it is measured against, and where files go."""

    model: str
    source: str | None
    """The teacher or recipe that made its labels."""
    out: Path
    """Folder of values that were computed already: a stopped run goes on."""
    limit: int | None = 60
    """Alloy slabs of GPAW; None takes all."""
    data: Path = Path("data/train_wide.aselmdb")
    """Labelled frames, for the errors on the test split."""
    other: str = "default"
    """Model that speed is compared with."""
    nve_steps: int = 10_000

    @cached_property
    def student(self) -> tuple[BaseCalculator, ModelInfo]:
        """Return the model as users have it, in float32, with its gas energies."""
        return benchmark_potential(self.model)

    @cached_property
    def precise_student(self) -> tuple[BaseCalculator, ModelInfo]:
        """Return the model in float64, for derivatives by differences."""
        return named_potential(self.model, dtype="float64")

    @cached_property
    def label_source(self) -> tuple[BaseCalculator, ModelInfo]:
        """Return what made the labels.

        Raises:
            ConfigError: none was named.
        """
        if self.source is None:
            raise ConfigError(
                "this row compares with the source of the labels; name it with "
                "--source, such as recipe:configs/labels.yaml"
            )
        return named_potential(self.source, dtype="float64")

    def values(
        self, pairs: list[Pair], *, of_source: bool = False, relaxed: bool = True
    ) -> dict[Key, Value]:
        """Return E(covered) − E(clean) of all pairs whose elements are known.

        Args:
            pairs: where relaxations start.
            of_source: by the source of the labels, not by the student.
            relaxed: else at the geometry that the pair has.
        """
        calculator, info = self.label_source if of_source else self.student
        steps = dft_sets.STEPS if relaxed else 0
        return adsorption_values.compute_values(
            dft_sets.only_of(info.elements, pairs),
            calculator,
            path=self.out / f"values-{info.sha256[:12]}-{steps}.csv",
            sha256=info.sha256,
            max_steps=steps,
        )


Measure = Callable[[Subjects], tuple[list[Check], Details]]


def knows(info: ModelInfo, *symbols: str) -> bool:
    """Return whether a model can be asked about all these elements."""
    return info.elements is None or info.elements >= set(symbols)
