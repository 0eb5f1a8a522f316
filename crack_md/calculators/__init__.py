"""ASE calculators around the models."""

from crack_md.calculators.crack import CrackCalculator

__all__ = ["CrackCalculator"]
