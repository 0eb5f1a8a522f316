import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT

from crack_md.calculators import CrackCalculator
from crack_md.errors import ConfigError, StructureError
from crack_md.workflows.sampling.chains import ChainReplicas, LangevinSettings
from crack_md.workflows.sampling.reference import MoleculePotential
from tests.factories import tiny_model
from tests.workflows.sampling.toys import (
    HYDROGEN_PEROXIDE,
    Alone,
    Peroxide,
    Spring,
    Toy,
    peroxide_start,
)

K, T = 30.0, 500.0


def oscillators(
    timestep_fs: float, *, chains: int = 40, atoms: int = 40, seed: int = 0
) -> ChainReplicas:
    numbers, starts = np.full(atoms, 1), np.zeros((chains, atoms, 3))
    settings = LangevinSettings(T, timestep_fs, 10.0, seed)
    return ChainReplicas(numbers, starts, Spring(K), settings, starts)


@pytest.mark.parametrize("timestep_fs", [0.5, 3.0])
def test_oscillators_have_exact_variances_and_the_kinetic_temperature_of_baoab(
    timestep_fs: float,
):
    dynamics = oscillators(timestep_fs)
    dynamics.advance(int(400 / timestep_fs))
    squares, temperatures = [], []
    for _ in range(30):
        dynamics.advance(int(30 / timestep_fs))
        squares.append(np.mean(dynamics.positions**2))
        temperatures.append(dynamics.temperatures.mean())
    kT = units.kB * T
    error = np.std(squares) / np.sqrt(30)
    assert np.mean(squares) == pytest.approx(kT / K, abs=4 * error)
    assert error < 0.01 * kT / K
    omega = np.sqrt(K / 1.008) * timestep_fs * units.fs
    error = np.std(temperatures) / np.sqrt(30)
    assert np.mean(temperatures) == pytest.approx(T * (1 - omega**2 / 4), abs=4 * error)
    if timestep_fs == 3.0:
        assert 1 - omega**2 / 4 < 0.95  # or the test could not tell


def test_the_same_seed_is_the_same_trajectory():
    same = [oscillators(0.5, chains=3, seed=4) for _ in range(2)]
    other = oscillators(0.5, chains=3, seed=5)
    for dynamics in (*same, other):
        dynamics.advance(20)
    assert np.array_equal(same[0].positions, same[1].positions)
    assert not np.allclose(same[0].positions, other.positions)
    # a chain does not know how many others there are
    more = oscillators(0.5, chains=5, seed=4)
    more.advance(20)
    assert np.array_equal(more.positions[:3], same[0].positions)
    assert not np.allclose(more.positions[0], more.positions[1])


def going_on(dynamics: ChainReplicas, again: ChainReplicas) -> None:
    """Check that a run of 40 steps is one of 15 and 25, blow-ups included."""
    dynamics.advance(15)
    dynamics.restart({1: "because"})
    stored = dynamics.state_dict()
    dynamics.advance(25)
    again.load_state_dict(stored)
    again.advance(25)
    assert np.array_equal(again.positions, dynamics.positions)
    assert np.array_equal(again.energies, dynamics.energies)
    assert again.step_count == 40
    assert again.ages.tolist() == [40, 25, 40]
    assert again.blow_ups == dynamics.blow_ups
    assert [tuple(one) for one in again.blow_ups] == [(1, 15, "because")]


def test_a_run_goes_on_to_the_last_bit():
    going_on(oscillators(0.5, chains=3), oscillators(0.5, chains=3))


def test_replicas_go_on_to_the_last_bit():
    starts = np.stack([peroxide_start(a) for a in (90.0, 110.0, 130.0)])
    settings = LangevinSettings(T, seed=3)
    made = [
        ChainReplicas(HYDROGEN_PEROXIDE, starts, Peroxide(), settings, starts)
        for _ in range(2)
    ]
    going_on(*made)
    assert made[0].temperatures.mean() == pytest.approx(T, rel=0.5)


def test_a_calculator_of_one_structure_moves_as_one_of_many():
    starts = np.stack([peroxide_start(angle) for angle in (90.0, 110.0, 130.0)])
    settings = LangevinSettings(T, seed=3)
    many, alone = (
        ChainReplicas(HYDROGEN_PEROXIDE, starts, calculator, settings, starts)
        for calculator in (Peroxide(), Alone(Peroxide()))
    )
    for dynamics in (many, alone):
        dynamics.advance(50)
    assert np.allclose(many.positions, alone.positions, atol=1e-10)
    assert many.temperatures.mean() == pytest.approx(T, rel=0.7)


class Cliff(Spring):
    """A spring that cannot be evaluated far out, or pulls madly there."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__(K)
        self.refuses = refuses

    def calculate_many(self, structures, properties, **_):  # type: ignore[no-untyped-def]
        answers = super().calculate_many(structures, properties)
        for place, atoms in enumerate(structures):
            if np.abs(atoms.positions).max() > 0.08:
                answers[place] = (
                    StructureError("too far out")
                    if self.refuses
                    else {"energy": np.nan, "forces": np.full((1, 3), 1e3)}
                )
        return answers


@pytest.mark.parametrize("refuses", [True, False])
def test_a_blow_up_is_counted_and_touches_no_other_chain(refuses: bool):
    numbers, starts = np.array([1]), np.zeros((8, 1, 3))
    settings = LangevinSettings(T)
    made = [
        ChainReplicas(numbers, starts, spring, settings, np.full((1, 1, 3), 0.01))
        for spring in (Cliff(refuses=refuses), Spring(K))
    ]
    for dynamics in made:
        dynamics.advance(30)
    cliff, spring = made
    fallen = sorted({event.replica for event in cliff.blow_ups})
    assert 0 < len(fallen) < 8
    assert not spring.blow_ups
    others = [chain for chain in range(8) if chain not in fallen]
    assert np.array_equal(cliff.positions[others], spring.positions[others])
    assert np.isfinite(cliff.positions).all()
    first = cliff.blow_ups[0]
    reason = "too far out" if refuses else "positions, energy or forces are not finite"
    assert first.reason == reason
    assert cliff.ages[first.replica] <= 30 - first.step


def test_any_calculator_gives_the_same_as_one_that_takes_many():
    toy = Peroxide(tilt=0.1)
    frames = np.stack([peroxide_start(angle) for angle in (60.0, 90.0, 150.0)])
    many = MoleculePotential(HYDROGEN_PEROXIDE, toy).evaluate_all(frames)
    assert toy.n_batches == 1
    alone = MoleculePotential(HYDROGEN_PEROXIDE, Alone(toy)).evaluate_all(frames)
    assert np.array_equal(many.energies, alone.energies)
    assert np.array_equal(many.forces, alone.forces)


def test_forces_of_the_toy_are_gradients():
    toy, start = Peroxide(tilt=0.1), peroxide_start(100.0)
    _, forces = toy.energies_and_forces(start[None])
    for atom, axis in ((0, 0), (2, 1), (3, 2)):
        moved = np.repeat(start[None], 2, axis=0)
        moved[0, atom, axis] -= 1e-5
        moved[1, atom, axis] += 1e-5
        low, high = toy.energies_and_forces(moved)[0]
        assert forces[0, atom, axis] == pytest.approx(-(high - low) / 2e-5, abs=1e-6)


def test_a_calculator_that_was_used_before_moves_too():
    """EMT keeps an array ``forces``, which looks like the method of a formula."""
    numbers, start = np.array([29, 29]), np.array([[0.0, 0, 0], [2.3, 0, 0]])
    calculator = EMT()
    calculator.get_potential_energy(Atoms(numbers, start))
    dynamics = ChainReplicas(
        numbers, start[None], calculator, LangevinSettings(T), start[None]
    )
    dynamics.advance(3)
    assert dynamics.ages.tolist() == [3]


class Hot(Spring):
    """A spring that pushes outwards far out, with forces that stay finite."""

    def energies_and_forces(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies, forces = super().energies_and_forces(x)
        far = np.abs(x) > 0.08
        return energies, np.where(far, np.sign(x) * 100.0, forces)


def test_the_rule_of_blow_ups_is_the_same_for_every_calculator():
    """By temperature, (3 + 30/f) times the bath's; not by the size of forces."""
    numbers, starts = np.array([1]), np.zeros((8, 1, 3))
    restarts, settings = np.full((1, 1, 3), 0.01), LangevinSettings(T)
    reasons = []
    for calculator in (Hot(K), Alone(Hot(K))):
        dynamics = ChainReplicas(numbers, starts, calculator, settings, restarts)
        dynamics.advance(60)
        reasons.append([(e.replica, e.step, e.reason) for e in dynamics.blow_ups])
    assert reasons[0] == reasons[1]
    assert reasons[0][0][2].endswith("above 6500 K")


def test_students_and_direct_forces_are_known():
    starts = np.stack([peroxide_start(angle) for angle in (90.0, 120.0)])
    for forces in ("gradient", "direct"):
        calculator = CrackCalculator(tiny_model(forces=forces), device="cpu")
        potential = MoleculePotential(HYDROGEN_PEROXIDE, calculator)
        assert potential.forces_kind == forces
        settings = LangevinSettings(T)
        dynamics = ChainReplicas(
            HYDROGEN_PEROXIDE, starts, calculator, settings, starts
        )
        dynamics.advance(3)
        again = potential.evaluate_all(dynamics.positions)
        assert np.allclose(again.energies, dynamics.energies, atol=1e-4)
        assert dynamics.ages.tolist() == [3, 3]


class Broken(Toy):
    def energies_and_forces(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise ZeroDivisionError


class Picky(Alone):
    def calculate(self, atoms=None, properties=None, system_changes=()):  # type: ignore[no-untyped-def]
        raise StructureError("hydrogen is unknown")


def test_errors_of_the_calculator_reach_the_user():
    starts = peroxide_start()[None]
    settings = LangevinSettings(T)
    for calculator, error in (
        (Broken(), ZeroDivisionError),
        (Picky(Peroxide()), StructureError),
    ):
        with pytest.raises(error):
            ChainReplicas(HYDROGEN_PEROXIDE, starts, calculator, settings, starts)
    assert MoleculePotential(HYDROGEN_PEROXIDE, Peroxide()).forces_kind == "gradient"
    assert Atoms(HYDROGEN_PEROXIDE).get_chemical_formula() == "H2O2"


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature_K": 0.0},
        {"timestep_fs": -1.0},
        {"friction_per_ps": float("nan")},
        {"seed": -1},
    ],
)
def test_settings_that_no_run_can_have(wrong: dict[str, float]):
    with pytest.raises(ConfigError, match="expected"):
        LangevinSettings(**{"temperature_K": 300.0, **wrong})  # type: ignore[arg-type]
