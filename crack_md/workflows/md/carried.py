"""Steps of a run that the device of a model takes, several at a time."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from crack_md.calculators.replicas.dynamics import carrier_of
from crack_md.calculators.replicas.langevin import coefficients
from crack_md.calculators.replicas.state import Motion, ReplicaAtoms
from crack_md.workflows.md.settings import MDSettings

if TYPE_CHECKING:
    from crack_md.calculators.replicas.on_device import Carrier
    from crack_md.workflows.md.integrators import SplitDynamics


class SplitDynamicsOnDevice:
    """The same steps, several at a time on the device of a model; else one by one.

    Args:
        host: steps of the atoms one by one, without a bath or with Langevin noise.
        carrier: what the calculator has for these atoms.
    """

    def __init__(self, host: "SplitDynamics", carrier: "Carrier") -> None:
        self.host, self.carrier = host, carrier
        self._last: tuple[Motion, np.ndarray] | None = None
        """Where the device has left the atoms, and their momenta there."""

    @property
    def heat(self) -> float:
        """Return what the bath has put in so far, in eV."""
        return self.host.heat

    def advance(self, n_steps: int) -> int:
        """Go some time steps ahead; one where the device would do something wrong."""
        atoms, rng = self.host.atoms, self.host.rng
        unused, noise = rng.bit_generator.state, None
        if self.host.bath is not None:
            noise = rng.standard_normal((n_steps, len(atoms), 3))
        found = self.carrier.carry(self._start(), n_steps, noise=noise)
        if found is None:
            rng.bit_generator.state = unused
            return self.host.advance(1)
        motion, energy = found.motion, float(found.motion.energies[0])
        atoms.positions = motion.positions
        atoms.set_velocities(motion.velocities)
        self._last = motion, atoms.get_momenta()
        self.host.heat += float(found.heat[0])
        results = {"energy": energy, "free_energy": energy, "forces": motion.forces}
        if found.nearest is not None:
            results["domain_distance"] = found.nearest
        atoms.calc.accept(atoms, results)
        return n_steps

    def _start(self) -> Motion:
        """Return where the atoms are, as the device has it if they are still there."""
        atoms = self.host.atoms
        if (
            self._last is not None
            and np.array_equal(self._last[0].positions, atoms.positions)
            and np.array_equal(self._last[1], atoms.get_momenta())
        ):
            return self._last[0]
        energies = np.array([atoms.get_potential_energy()])
        return Motion(
            atoms.positions.copy(),
            atoms.get_velocities(),
            energies,
            atoms.get_forces(apply_constraint=False),
        )

    def memory(self) -> dict[str, float]:
        """Return the heat exchanged so far."""
        return self.host.memory()


def carrier_for(
    atoms: Atoms, settings: MDSettings, dof: int, max_temperature_K: float
) -> "Carrier | None":
    """Return what takes such steps on the device of the calculator, if it can."""
    fixed = all(isinstance(one, FixAtoms) for one in atoms.constraints)
    if settings.ensemble not in ("nve", "langevin") or not fixed:
        return None
    which = ReplicaAtoms.of([atoms])
    friction_per_ps = settings.friction_per_ps if settings.ensemble != "nve" else 0.0
    step = coefficients(
        np.full((len(atoms), 1), settings.temperature_K),
        np.full((len(atoms), 1), friction_per_ps),
        which.inverse_mass,
        timestep_fs=settings.timestep_fs,
    )
    which = replace(which, n_degrees=np.array([dof]))
    return carrier_of(atoms.calc, [atoms], which, step, np.array([max_temperature_K]))
