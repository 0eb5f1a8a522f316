import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from crack_md.errors import ConfigError, StructureError
from crack_md.workflows.relax.relax import (
    RelaxSettings,
    best_constant,
    is_settled,
    optimizer_named,
    relax_atoms,
    relax_fcc_constant,
)


class Broken(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        self.results = {
            "energy": float("nan"),
            "forces": np.full((len(atoms), 3), np.nan),
        }


def test_dimer_finds_its_minimum() -> None:
    start = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.6]])
    result = relax_atoms(start, EMT(), settings=RelaxSettings(fmax=1e-4))
    assert result.converged
    assert result.max_force < 1e-4
    apart = result.atoms.get_distance(0, 1)
    around = [
        Atoms("Cu2", [[0, 0, 0], [0, 0, apart + h]], calculator=EMT())
        for h in (-0.02, 0.02)
    ]
    assert all(a.get_potential_energy() > result.energy for a in around)
    assert start.positions[1, 2] == 2.6


def test_fixed_atoms_stay_and_do_not_count() -> None:
    slab = fcc111("Cu", (1, 1, 4), a=3.4, vacuum=8.0)
    slab.set_constraint(FixAtoms([0, 1]))
    result = relax_atoms(slab, EMT(), settings=RelaxSettings(fmax=0.01))
    assert result.converged
    assert np.array_equal(result.atoms.positions[:2], slab.positions[:2])
    forces = result.atoms.get_forces(apply_constraint=False)
    assert np.abs(forces[:2]).max() > 0.01


def test_says_when_it_did_not_converge() -> None:
    slab = fcc111("Cu", (1, 1, 4), a=3.4, vacuum=8.0)
    result = relax_atoms(slab, EMT(), settings=RelaxSettings(fmax=1e-6, steps=2))
    assert not result.converged
    assert result.n_steps == 2


def test_refuses_energies_that_are_not_numbers() -> None:
    with pytest.raises(StructureError, match="not finite"):
        relax_atoms(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.6]]), Broken())


@pytest.mark.parametrize(
    "optimizer",
    [
        *("LBFGS", "BFGS", "FIRE", "FIRE2", "MDMin", "GPMin", "QuasiNewton"),
        *("BFGSLineSearch", "LBFGSLineSearch", "GoodOldQuasiNewton", "RFO"),
    ],
)
def test_every_optimizer_finds_the_same_minimum(optimizer: str) -> None:
    slab = fcc111("Cu", (1, 1, 4), a=3.4, vacuum=8.0)
    slab.set_constraint(FixAtoms([0, 1]))
    lowest = relax_atoms(slab, EMT(), settings=RelaxSettings(fmax=1e-3)).energy
    result = relax_atoms(
        slab, EMT(), settings=RelaxSettings(fmax=1e-2, optimizer=optimizer)
    )
    assert result.status == "converged"
    assert result.max_force < 1e-2
    assert result.energy == pytest.approx(lowest, abs=1e-4)


def test_steps_are_no_longer_than_allowed() -> None:
    start = Atoms("Cu2", [[0, 0, 0], [0, 0, 1.6]])
    for optimizer in ("LBFGS", "FIRE", "RFO"):
        one = relax_atoms(
            start,
            EMT(),
            settings=RelaxSettings(steps=1, maxstep=0.01, optimizer=optimizer),
        )
        moved = np.linalg.norm(one.atoms.positions - start.positions, axis=1)
        assert 0 < moved.max() < 0.01 + 1e-9


def test_line_searches_take_the_limit_for_each_trial() -> None:
    """ASE may add trials of one line search up; the first is as long as allowed."""
    start = Atoms("Cu2", [[0, 0, 0], [0, 0, 1.6]])
    for maxstep in (0.1, 0.2):
        settings = RelaxSettings(steps=1, maxstep=maxstep, optimizer="LBFGSLineSearch")
        one = relax_atoms(start, EMT(), settings=settings)
        moved = np.abs(one.atoms.positions - start.positions).max()
        assert moved == pytest.approx(maxstep)


def test_steps_of_a_cell_are_limited_too() -> None:
    """RFO hands maxstep on to its parent, which the relaxation of cells overlooked."""
    strained = bulk("Cu", cubic=True, a=3.2)
    strained.rattle(0.1, seed=0)
    settings = RelaxSettings(cell="full", steps=1, maxstep=0.005, optimizer="RFO")
    one = relax_atoms(strained, EMT(), settings=settings)
    moved = np.abs(one.atoms.cell.array - strained.cell.array).max()
    assert 0 < moved < 0.005 * strained.cell.lengths()[0]


@pytest.mark.parametrize(
    ("status", "max_force", "settled"),
    [
        ("converged", 0.03, True),
        ("plateau", 0.1, True),
        ("plateau", 0.5, False),
        ("plateau", None, False),
        ("not_converged", 0.01, False),
        ("desorbed", 0.01, False),
    ],
)
def test_settled(status: str, max_force: float | None, settled: bool) -> None:
    assert is_settled(status, max_force) == settled


@pytest.mark.parametrize("name", ["Newton", "CellAwareBFGS", "ODE12r", "Optimizer"])
def test_unknown_optimizers(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}'; expected one of:.*FIRE.*LBFGS"):
        optimizer_named(name)


class Swirl(Calculator):
    """A harmonic well with a constant force of 0.2 eV/Å on top that has no potential.

    Like direct forces of a network: their largest never falls below 0.2 eV/Å.
    """

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        x, y, z = atoms.positions.T
        outward = np.hypot(x, y) + 1e-9
        around = np.stack([-y / outward, x / outward, 0 * z], axis=1)
        self.results = {
            "energy": float((atoms.positions**2).sum() / 2),
            "forces": -atoms.positions + 0.2 * around,
        }


def test_forces_that_no_longer_fall_are_a_plateau() -> None:
    start = Atoms("Cu", [[1.0, 0.5, 0.8]])
    result = relax_atoms(start, Swirl(), settings=RelaxSettings(plateau_steps=20))
    assert result.status == "plateau"
    assert result.plateau
    assert result.n_steps < 150
    assert 0.19 < result.max_force < 0.25
    # The frame that is kept is the one of the smallest force, with its own energy.
    assert result.energy == pytest.approx((result.atoms.positions**2).sum() / 2)
    without = relax_atoms(start, Swirl(), settings=RelaxSettings(steps=150))
    assert without.status == "not_converged"
    assert without.n_steps == 150


class Creeping(Calculator):
    """A force that shrinks by a fixed share with every call, wherever the atom is."""

    implemented_properties = ("energy", "forces")

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.force = share, 0.5

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        self.force *= 1 - self.share
        forces = np.array([[0.0, 0.0, self.force]])
        self.results = {"energy": 0.0, "forces": forces}


@pytest.mark.parametrize(("share", "plateau"), [(0.0005, True), (0.002, False)])
def test_less_than_five_percent_is_no_fall(share: float, plateau: bool) -> None:
    """In 60 steps 3 and 11 %."""
    start = Atoms("Cu", cell=[9, 9, 9])
    result = relax_atoms(
        start,
        Creeping(share),
        settings=RelaxSettings(steps=150, optimizer="FIRE", plateau_steps=60),
    )
    assert result.plateau == plateau


def test_slow_convergence_is_no_plateau() -> None:
    slab = fcc111("Cu", (1, 1, 4), a=3.4, vacuum=8.0)
    options = {"fmax": 1e-4, "maxstep": 0.002}
    usual = relax_atoms(slab, EMT(), settings=RelaxSettings(**options))
    watched = relax_atoms(
        slab, EMT(), settings=RelaxSettings(**options, plateau_steps=60)
    )
    assert watched.status == "converged"
    assert watched.n_steps == usual.n_steps
    assert watched.energy == usual.energy


@pytest.mark.parametrize("metal", ["Pt", "Cu", "Au"])
def test_lattice_constant_is_where_the_stress_vanishes(metal: str) -> None:
    constant = relax_fcc_constant(metal, EMT())
    crystal = bulk(metal, "fcc", a=constant)
    crystal.calc = EMT()
    assert np.abs(crystal.get_stress()).max() < 2e-4


def test_lattice_constant_is_found_from_far_off() -> None:
    constant = relax_fcc_constant("Cu", EMT())
    for factor in (0.8, 1.2):
        found = best_constant(
            lambda a: bulk("Cu", "fcc", a=a), factor * constant, EMT()
        )
        assert found == pytest.approx(constant, abs=1e-4)


def test_lattice_without_a_lowest_energy_is_refused() -> None:
    class Repelled(Calculator):
        implemented_properties = ("energy",)

        def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
            super().calculate(atoms, properties, system_changes)
            self.results = {"energy": -float(atoms.cell.volume)}

    with pytest.raises(StructureError, match="no lattice constant of lowest energy"):
        relax_fcc_constant("Cu", Repelled())


def stepped(vacuum: float = 6.0) -> Atoms:
    """Return strained copper with a rough upper side, which has room in its plane."""
    slab = fcc111("Cu", (1, 1, 4), a=3.8, vacuum=vacuum, periodic=True)
    slab.positions[-1, :2] += [0.05, -0.03]
    slab.set_constraint(FixAtoms([1]))
    return slab


def turned(slab: Atoms, how: str) -> Atoms:
    """Return the same slab, turned in space or with its cell vectors renamed."""
    if how == "into yz":
        slab.rotate(120, (1, 1, 1), rotate_cell=True)  # x → y → z → x
        assert slab.get_cell()[2] == pytest.approx([slab.cell.lengths()[2], 0, 0])
    elif how == "anyhow":
        slab.rotate(40, (1, 2, 3), rotate_cell=True)
    elif how == "vacuum first":
        slab.set_cell(slab.cell.array[[2, 0, 1]])
    elif how == "c downwards":
        slab.rotate(180, "x", rotate_cell=True)
    return slab


@pytest.mark.parametrize("how", ["into yz", "anyhow", "vacuum first", "c downwards"])
def test_flat_cells_relax_alike_however_they_lie(how: str):
    settings = RelaxSettings(cell="xy", fmax=2e-3)
    known = relax_atoms(stepped(), EMT(), settings=settings)
    found = relax_atoms(turned(stepped(), how), EMT(), settings=settings)
    assert known.converged
    assert found.converged
    assert found.energy == pytest.approx(known.energy, abs=1e-5)
    lengths = known.atoms.cell.cellpar()
    if how == "vacuum first":
        lengths = lengths[[2, 0, 1, 5, 3, 4]]
    assert found.atoms.cell.cellpar() == pytest.approx(lengths, abs=5e-3)
    # the plane shrinks, and vacuum does not
    assert known.atoms.cell.lengths()[0] < stepped().cell.lengths()[0] - 0.05
    assert known.atoms.cell.lengths()[2] == pytest.approx(stepped().cell[2, 2])
