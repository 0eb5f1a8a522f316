"""Replicas keep to themselves: seeds, restarts, states, and the models behind them."""

import io
from typing import Any

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian

from crack_md.calculators import BatchEvaluator, CrackCalculator, Langevin, Replicas
from crack_md.calculators.replicas.dynamics import blow_up_reasons
from crack_md.calculators.replicas.state import (
    CalculatorForces,
    ForceBatch,
    ReplicaAtoms,
)
from crack_md.errors import ConfigError, CrackError, DataError, StructureError
from tests.calculators.engines import CountingEngine
from tests.calculators.potentials import Trap
from tests.calculators.springs import Springs
from tests.factories import oxygen_slab, tiny_model, water

WARM = Langevin(300.0, friction_per_ps=5.0, timestep_fs=1.0)


def trapped(n_replicas: int, n_atoms: int = 2) -> list[ase.Atoms]:
    """Return molecules spread around the centre of a trap."""
    random = np.random.default_rng(0)
    return [
        ase.Atoms("O" * n_atoms, random.normal(scale=0.1, size=(n_atoms, 3)))
        for _ in range(n_replicas)
    ]


class BadTrap(Trap):
    """Has no forces on some replicas in some calls; the first call is number 1."""

    def __init__(self, sizes: list[int], bad: dict[int, list[int]], **k: float) -> None:
        super().__init__(sizes, **k)
        self.bad, self.sizes = bad, sizes

    def forces(self, positions: np.ndarray) -> ForceBatch:  # type: ignore[override]
        energies, forces = super().forces(positions)
        broken = self.bad.get(self.n_calls, [])
        for replica in broken:
            energies[replica] = np.nan
            first = sum(self.sizes[:replica])
            forces[first : first + self.sizes[replica]] = np.inf
        return ForceBatch(energies, forces, dict.fromkeys(broken, "told to"))


def rows(replicas: Replicas, replica: int, name: str = "positions") -> np.ndarray:
    return getattr(replicas.state, name)[replicas.atoms.rows(replica)]


# --------------------------------------------------------------------- independence


def test_equal_seeds_move_alike_and_others_do_not() -> None:
    start = trapped(1) * 3
    replicas = Replicas(start, Trap([2] * 3), WARM, seeds=[4, 4, 5])
    replicas.run(50)
    np.testing.assert_array_equal(rows(replicas, 0), rows(replicas, 1))
    assert np.abs(rows(replicas, 0) - rows(replicas, 2)).max() > 1e-3


def test_consecutive_seeds_follow_from_the_first() -> None:
    one = Replicas(trapped(3), Trap([2] * 3), WARM, seeds=7)
    other = Replicas(trapped(3), Trap([2] * 3), WARM, seeds=[7, 8, 9])
    for replicas in (one, other):
        replicas.run(5)
    np.testing.assert_array_equal(one.state.positions, other.state.positions)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_a_replica_does_not_notice_what_runs_beside_it(forces: str) -> None:
    calculator = CrackCalculator(
        tiny_model(forces=forces), device="cpu", dtype="float64"
    )
    structures = [water(), oxygen_slab(seed=1), water(), bulk("Pt", a=3.9) * (1, 1, 2)]
    dynamics = Langevin([300.0, 200.0, 500.0, 100.0], [5.0, 0.0, 1.0, 20.0], 1.0)
    together = Replicas(structures, calculator, dynamics, seeds=[3, 1, 2, 0])
    together.run(15)
    for replica, seed in enumerate([3, 1, 2, 0]):
        alone = Replicas(
            [structures[replica]],
            calculator,
            Langevin(
                dynamics.temperature_K[replica],  # type: ignore[index]
                dynamics.friction_per_ps[replica],  # type: ignore[index]
                1.0,
            ),
            seeds=[seed],
        )
        alone.run(15)
        for name in ("positions", "velocities", "forces"):
            np.testing.assert_allclose(
                rows(together, replica, name), rows(alone, 0, name), atol=1e-9
            )
        moved = rows(together, replica) - structures[replica].positions
        assert np.abs(moved).max() > 1e-3


def test_every_step_is_one_pass_of_the_model() -> None:
    engine = CountingEngine(tiny_model())
    evaluator = BatchEvaluator([engine])
    replicas = Replicas([oxygen_slab(seed=i) for i in range(4)], evaluator, WARM)
    replicas.run(3)
    assert engine.passes == [4 * 13] * 4


def test_any_calculator_of_ase_will_do() -> None:
    structures = [bulk("Cu") * (1, 1, 2), bulk("Au") * (2, 1, 1), bulk("Cu")]
    replicas = Replicas(structures, EMT(), WARM, seeds=1)
    replicas.run(3)
    for atoms in replicas.structures():
        stored = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(stored[0])
        np.testing.assert_allclose(atoms.get_forces(), stored[1], atol=1e-10)


def test_fixed_atoms_stay_and_do_not_count() -> None:
    atoms = oxygen_slab()
    atoms.set_velocities(np.full((13, 3), 0.01))  # of those that will be fixed, too
    atoms.set_constraint(FixAtoms(range(8)))
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    for keep in (False, True):
        replicas = Replicas([atoms], calculator, WARM, keep_velocities=keep)
        replicas.run(5)
        np.testing.assert_array_equal(rows(replicas, 0)[:8], atoms.positions[:8])
        assert np.abs(rows(replicas, 0)[8:] - atoms.positions[8:]).max() > 1e-3
        assert replicas.n_blow_ups.tolist() == [0]
    assert replicas.atoms.n_degrees.tolist() == [15]


def test_temperatures_count_what_moves() -> None:
    atoms = ase.Atoms("OPt", [[0, 0, 0], [2, 0, 0]], constraint=FixAtoms([1]))
    atoms.set_velocities([[0.1, 0.2, 0.3], [1, 1, 1]])
    replicas = Replicas([atoms], Trap([2]), Langevin(0.0, 0.0), keep_velocities=True)
    energy = 15.999 * (0.01 + 0.04 + 0.09) / 2
    assert replicas.kinetic_energies[0] == pytest.approx(energy)
    assert replicas.temperatures[0] == pytest.approx(2 * energy / (3 * ase.units.kB))


# ------------------------------------------------------------------------ blow-ups


def test_a_blow_up_is_counted_and_disturbs_no_other_replica() -> None:
    sizes, start = [2, 3, 2], [*trapped(1), *trapped(1, 3), *trapped(1)]
    calm = Replicas(start, Trap(sizes), WARM)
    # calls: 1 at the start, one per step; a restart takes one more
    shaken = Replicas(start, BadTrap(sizes, {5: [1], 8: [0, 1]}), WARM)
    for replicas in (calm, shaken):
        replicas.run(10)
    np.testing.assert_array_equal(rows(shaken, 2), rows(calm, 2))
    np.testing.assert_array_equal(
        rows(shaken, 2, "velocities"), rows(calm, 2, "velocities")
    )
    assert [(b.replica, b.step, b.reason) for b in shaken.state.blow_ups] == [
        (1, 4, "told to"),
        (0, 6, "told to"),
        (1, 6, "told to"),
    ]
    assert shaken.n_blow_ups.tolist() == [1, 2, 0]
    assert shaken.state.steps_since_start.tolist() == [4, 4, 10]
    assert np.isfinite(shaken.state.positions).all()
    assert calm.n_blow_ups.tolist() == [0, 0, 0]


def test_a_replica_starts_again_where_it_started_but_moves_anew() -> None:
    start = trapped(2)
    replicas = Replicas(start, BadTrap([2, 2], {4: [1]}), WARM)
    first = rows(replicas, 1, "velocities").copy()
    replicas.run(3)
    np.testing.assert_array_equal(rows(replicas, 1), start[1].positions)
    again = rows(replicas, 1, "velocities")
    assert np.abs(again - first).min() > 1e-6
    energies, forces = Trap([2, 2]).forces(replicas.state.positions)
    np.testing.assert_array_equal(replicas.state.energies, energies)
    np.testing.assert_array_equal(replicas.state.forces, forces)


def test_a_replica_starts_again_from_frames_that_are_given() -> None:
    frames = [trapped(4)[2:], trapped(9)[4:]]
    seen = set()
    for seed in range(20):
        trap = BadTrap([2, 2], {3: [1]})
        replicas = Replicas(trapped(2), trap, WARM, seeds=seed, restart_frames=frames)
        replicas.run(2)
        places = [f.positions.tolist() for f in frames[1]]
        seen.add(places.index(rows(replicas, 1).tolist()))
    assert seen == set(range(5))


@pytest.mark.parametrize("what", ["positions", "velocities", "forces", "energies"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_number_that_is_not_finite_is_a_blow_up(what: str, value: float) -> None:
    atoms = ReplicaAtoms.of(trapped(3))
    values = {name: np.ones((6, 3)) for name in ("positions", "velocities", "forces")}
    values["energies"] = np.ones(3)
    values[what][1 if what == "energies" else (2, 0)] = value
    reasons = blow_up_reasons(
        values["positions"],
        values["velocities"],
        ForceBatch(values["energies"], values["forces"]),
        atoms=atoms,
        max_temperature_K=np.full(3, np.inf),
    )
    assert reasons == {1: "positions, energy or forces are not finite"}


def test_too_hot_is_a_blow_up() -> None:
    hot = trapped(2)
    hot[1].set_velocities(np.full((2, 3), 1.0))
    replicas = Replicas(
        hot,
        Trap([2, 2]),
        Langevin(300.0, 1e-3, 1.0),
        keep_velocities=True,
        max_temperature_K=[1e9, 5000.0],
    )
    replicas.run(1)
    (event,) = replicas.state.blow_ups
    assert event.replica == 1
    assert "above 5000 K" in event.reason
    replicas.run(20)
    assert len(replicas.state.blow_ups) == 1


def test_limits_follow_the_bath_and_the_size() -> None:
    dynamics = Langevin([100.0, 300.0, 0.0, 300.0], [1.0, 1.0, 1.0, 0.0])
    structures = [*trapped(1, 1), *trapped(1, 10), *trapped(2, 2)]
    for atoms in structures:  # far above any limit
        atoms.set_velocities(np.full((len(atoms), 3), 10.0))
    replicas = Replicas(structures, Trap([1, 10, 2, 2]), dynamics, keep_velocities=True)
    replicas.run(1)
    found = {event.replica: event.reason for event in replicas.state.blow_ups}
    assert found.keys() == {0, 1}  # no bath, or no temperature: no limit
    assert "above 1300 K" in found[0]
    assert "above 1200 K" in found[1]


def test_numbers_without_end_are_a_blow_up() -> None:
    atoms = trapped(2)
    atoms[0].set_velocities(np.full((2, 3), 1e200))
    replicas = Replicas(
        atoms, Springs(), Langevin(300.0, 1.0, 1e200), keep_velocities=True
    )
    replicas.run(2)
    assert replicas.n_blow_ups.min() >= 1
    assert "not finite" in replicas.state.blow_ups[0].reason


def test_structures_that_the_model_refuses_are_a_blow_up() -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    calm, wild = water(), water()
    # flies to where no coordinate is accepted
    wild.set_velocities([[1e9, 0, 0], [0, 0, 0], [0, 0, 0]])
    replicas = Replicas(
        [calm, wild],
        calculator,
        Langevin(300.0, 1.0, 1.0),
        keep_velocities=True,
        max_temperature_K=np.inf,
    )
    replicas.run(3)
    (event,) = replicas.state.blow_ups
    assert (event.replica, event.step) == (1, 1)
    assert "expected coordinates below" in event.reason


def test_a_start_without_forces_is_refused() -> None:
    with pytest.raises(StructureError, match="replica 1 cannot start: told to"):
        Replicas(trapped(2), BadTrap([2, 2], {1: [1]}), WARM)
    replicas = Replicas(trapped(2), BadTrap([2, 2], {2: [0], 3: [0]}), WARM)
    with pytest.raises(StructureError, match="replica 0 cannot start"):
        replicas.run(1)
    assert replicas.state.step_count == 0


def test_other_errors_are_no_blow_ups_and_leave_the_last_step() -> None:
    class Exhausted(Springs):
        def answer(self, atoms: ase.Atoms) -> dict[str, Any] | Exception:
            if len(self.batches) > 3:
                return CrackError("cpu ran out of memory on 2 atoms")
            return super().answer(atoms)

    replicas = Replicas(trapped(2), Exhausted(), WARM)
    with pytest.raises(CrackError, match="out of memory"):
        replicas.run(10)
    assert replicas.state.step_count == 2
    assert replicas.state.blow_ups == ()


# -------------------------------------------------------------------------- states


def test_twice_n_steps_are_two_n_steps_bit_for_bit() -> None:
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    structures = [water(), oxygen_slab(), water()]
    dynamics = Langevin(300.0, friction_per_ps=50.0, timestep_fs=1.0)
    # tight enough that a water blows up now and then
    options: dict[str, Any] = {"seeds": 5, "max_temperature_K": [300.0, 1e4, 300.0]}
    whole = Replicas(structures, calculator, dynamics, **options)
    whole.run(18)
    assert {event.step <= 9 for event in whole.state.blow_ups} == {True, False}
    assert whole.n_blow_ups[1] == 0
    half = Replicas(structures, calculator, dynamics, **options)
    half.run(9)
    file = io.BytesIO()
    np.savez(file, **half.state_dict())
    half.run(3)  # what was saved must not follow
    rest = Replicas(structures, calculator, dynamics, **{**options, "seeds": 99})
    file.seek(0)
    rest.load_state_dict(np.load(file, allow_pickle=False))
    rest.run(9)
    for name, expected in whole.state_dict().items():
        np.testing.assert_array_equal(rest.state_dict()[name], expected, err_msg=name)


def test_a_state_is_a_copy() -> None:
    replicas = Replicas(trapped(2), Trap([2, 2]), WARM)
    saved = replicas.state_dict()
    saved["positions"] += 1
    assert np.abs(replicas.state.positions).max() < 1
    replicas.load_state_dict(saved)
    saved["positions"] += 1
    assert np.abs(replicas.state.positions).max() < 2


def test_a_state_of_other_replicas_is_refused() -> None:
    replicas = Replicas(trapped(2), Trap([2, 2]), WARM)
    other = Replicas(trapped(2, 3), Trap([3, 3]), WARM)
    with pytest.raises(DataError, match=r"\(6, 3\) for positions, expected \(4, 3\)"):
        replicas.load_state_dict(other.state_dict())
    with pytest.raises(DataError, match="nothing for positions"):
        replicas.load_state_dict({})


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structures": []}, "no structures"),
        ({"seeds": [1]}, "seeds is"),
        ({"seeds": [1, -1]}, "0 or more"),
        ({"dynamics": Langevin([300.0] * 3)}, "temperature_K is"),
        ({"dynamics": Langevin(-1.0)}, "temperature_K is"),
        ({"dynamics": Langevin(300.0, [1.0, np.nan])}, "friction_per_ps is"),
        ({"max_temperature_K": [1.0]}, "max_temperature_K is"),
        ({"restart_frames": [trapped(1)]}, "frames for 1 replicas"),
        ({"restart_frames": [trapped(1), []]}, "frames for 1 replicas"),
        ({"restart_frames": [trapped(1), trapped(1, 3)]}, "other atoms than O2"),
        ({"structures": [ase.Atoms()]}, r"replica 0 \(empty\)"),
        ({"structures": [ase.Atoms("O", masses=[0.0])]}, "positive masses"),
        (
            {"structures": [ase.Atoms("O", constraint=FixAtoms([0]))]},
            "all atoms of replica 0 are fixed",
        ),
        (
            {"structures": [ase.Atoms("O", constraint=FixCartesian(0))]},
            "constraint FixCartesian",
        ),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    arguments = {"structures": trapped(2), "dynamics": WARM, **changes}
    structures = arguments.pop("structures")
    dynamics = arguments.pop("dynamics")
    with pytest.raises(ConfigError, match=message):
        Replicas(structures, Springs(), dynamics, **arguments)


def test_forces_of_a_calculator_are_those_of_its_structures() -> None:
    structures = [water(), oxygen_slab()]
    calculator = CrackCalculator(tiny_model(), device="cpu", dtype="float64")
    moved = np.concatenate([atoms.positions for atoms in structures]) + 0.01
    found = CalculatorForces(structures, calculator).forces(moved)
    first = 0
    for replica, atoms in enumerate(structures):
        atoms.positions = moved[first : first + len(atoms)]
        atoms.calc = calculator
        assert found.energies[replica] == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(
            found.forces[first : first + len(atoms)], atoms.get_forces(), atol=1e-10
        )
        first += len(atoms)
