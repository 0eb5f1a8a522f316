"""An optimizer that gets nowhere hands over to FIRE, and the record says so."""

import numpy as np
from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from crack_md.workflows.relax.relax import RelaxSettings, StallWatch, relax_atoms


class Kink(Calculator):
    """A steep valley in x that a quasi-Newton step leaps over; z falls to z = 0.

    E = w log cosh(x / w) s + z²/2 with slope s on both sides of a floor of width w.
    """

    implemented_properties = ("energy", "forces")
    slope, width = 4.0, 1e-5

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        x, _, z = atoms.positions[0]
        u = abs(x) / self.width
        cosh = u + np.log1p(np.exp(-2 * u)) - np.log(2)
        force = [-self.slope * np.tanh(x / self.width), 0.0, -z]
        energy = self.slope * self.width * cosh + z * z / 2
        self.results = {"energy": float(energy), "forces": np.array([force])}


def test_fire_goes_on_from_the_lowest_frame_and_the_result_says_where() -> None:
    start = Atoms("H", [[0.03, 0.0, 1.0]])
    settings = RelaxSettings(steps=200)
    done = relax_atoms(start, Kink(), settings=settings)
    assert done.stalled_at is not None
    assert done.n_steps <= 200
    kept = relax_atoms(
        start, Kink(), settings=RelaxSettings(steps=200, stall_steps=None)
    )
    assert kept.stalled_at is None
    assert done.energy <= kept.energy + 1e-9


def test_a_relaxation_that_gets_on_is_left_alone() -> None:
    start = fcc111("Cu", (1, 1, 3), vacuum=8.0)
    start.positions[-1, 2] += 0.2
    with_watch = relax_atoms(start, EMT(), settings=RelaxSettings())
    without = relax_atoms(start, EMT(), settings=RelaxSettings(stall_steps=None))
    assert with_watch.stalled_at is None
    assert (with_watch.n_steps, with_watch.energy) == (without.n_steps, without.energy)


def test_watch_waits_for_force_and_energy() -> None:
    atoms, watch = Atoms("H"), StallWatch(3)
    # energy (eV), force (eV/Å), whether that is progress: either is enough
    history = [
        (0.0, 1.0, False),
        (-0.5, 1.0, False),
        (-0.5, 0.9, False),
        (-0.5005, 0.9, False),
        (-0.4, 0.88, False),
        (-0.3, 0.9, True),
    ]
    for number, (energy, force, stalled) in enumerate(history):
        atoms.positions[0, 0] = number
        assert watch.sees_stall(atoms, energy, force) is stalled
    watch.go_back(atoms)
    assert atoms.positions[0, 0] == 3.0  # the lowest energy


def test_never_stalls_without_patience() -> None:
    watch = StallWatch(None)
    assert not any(watch.sees_stall(Atoms("H"), 0.0, 1.0) for _ in range(100))
