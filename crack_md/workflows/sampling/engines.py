"""Which engine moves the chains of a calculator."""

from ase.calculators.calculator import BaseCalculator

from crack_md.workflows.sampling.dynamics import BuildDynamics
from crack_md.workflows.sampling.replica_dynamics import ReplicaDynamics
from crack_md.workflows.sampling.serial_dynamics import SerialDynamics


def engine_for(calculator: BaseCalculator) -> BuildDynamics:
    """Return replicas for calculators that take many structures, else one by one."""
    takes_many = hasattr(calculator, "calculate_many")
    return ReplicaDynamics if takes_many else SerialDynamics
