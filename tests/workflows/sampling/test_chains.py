from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crack_md.calculators.replicas.state import BlowUp
from crack_md.data.torsions import BondGraph
from crack_md.errors import ConfigError, DataError
from crack_md.workflows.sampling.analysis import GeometryLimits
from crack_md.workflows.sampling.chains import (
    SampledChains,
    SamplingSettings,
)
from crack_md.workflows.sampling.run_chains import run_chains
from tests.workflows.sampling.toys import HYDROGEN_PEROXIDE, Peroxide, peroxide_start

SETTINGS = SamplingSettings(500.0, n_chains=4, steps=400, record_every=10)
STARTS = np.stack([peroxide_start(angle) for angle in (80.0, 100.0, 120.0, 140.0)])
LIMITS = GeometryLimits.of(BondGraph((8, 8, 1, 1), ((0, 1), (0, 2), (1, 3))), STARTS)


def run(
    path: Path, settings: SamplingSettings = SETTINGS, **changes: Any
) -> SampledChains:
    options = {
        "limits": LIMITS,
        "restart_frames": STARTS,
        "provenance": {"model": "toy"},
        **changes,
    }
    model = options.pop("model", Peroxide())
    return run_chains(
        HYDROGEN_PEROXIDE, STARTS, model, settings=settings, path=path, **options
    )


def equal(a: SampledChains, b: SampledChains) -> bool:
    names = ("positions", "energies", "temperatures", "ages")
    same = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    return same and a.blow_ups == b.blow_ups


def test_what_is_recorded(tmp_path: Path):
    told: list[int] = []
    chains = run(tmp_path / "chains.npz", report=told.append)
    assert chains.positions.shape == (4, 40, 4, 3)
    assert chains.positions.dtype == np.float32
    assert chains.energies.shape == chains.temperatures.shape == (4, 40)
    assert told == list(range(10, 401, 10))
    assert chains.ages[0].tolist() == told
    # a fifth does not count
    assert chains.counts[0].tolist() == [False] * 8 + [True] * 32
    assert chains.survival == 1.0
    assert chains.temperatures[:, 20:].mean() == pytest.approx(500.0, rel=0.25)
    toy = Peroxide()
    energies, _ = toy.energies_and_forces(chains.positions[2].astype(float))
    assert np.allclose(energies, chains.energies[2], atol=1e-4)


def test_two_halves_are_the_whole(tmp_path: Path):
    whole = run(tmp_path / "whole.npz")
    parts = tmp_path / "parts.npz"
    first = run(parts, replace(SETTINGS, steps=200))
    assert first.positions.shape[1] == 20
    assert equal(run(parts), whole)
    # and a shorter look at a longer run is its first part
    again = run(parts, replace(SETTINGS, steps=200))
    assert np.array_equal(again.positions, first.positions)


def test_an_interrupted_run_goes_on(tmp_path: Path):
    path = tmp_path / "chains.npz"

    def interrupt(step: int) -> None:
        if step == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, report=interrupt)
    told: list[int] = []
    chains = run(path, report=told.append)
    assert told[0] == 160
    assert equal(chains, run(tmp_path / "whole.npz"))


def test_a_killed_run_loses_what_came_after_its_last_save(tmp_path: Path):
    class KilledError(Exception):
        pass

    def kill(step: int) -> None:
        if step == 250:
            raise KilledError

    path = tmp_path / "chains.npz"
    with pytest.raises(KilledError):
        run(path, report=kill, save_every_s=0.0)
    assert path.exists()
    assert equal(run(path), run(tmp_path / "whole.npz"))


def test_other_chains_are_refused(tmp_path: Path):
    path = tmp_path / "chains.npz"
    run(path)
    with pytest.raises(DataError, match=r"seed 0 \(now 1\)"):
        run(path, replace(SETTINGS, seed=1))
    with pytest.raises(DataError, match=r"model 'toy' \(now 'other'\)"):
        run(path, provenance={"model": "other"})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="damaged"):
        run(path)


class Falling(Peroxide):
    """A bond beyond which nothing holds: all atoms leave at the speed they have."""

    def energies_and_forces(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy, forces = super().energies_and_forces(x)
        torn = np.linalg.norm(x[:, 2] - x[:, 0], axis=1) > 1.06
        forces[torn] = 0.0
        return energy, forces


def test_broken_bonds_are_counted_and_their_restarts_discarded(tmp_path: Path):
    settings = replace(SETTINGS, steps=1200)
    chains = run(tmp_path / "chains.npz", settings, model=Falling())
    assert chains.blow_ups
    assert "Å off its mean" in chains.blow_ups[0].reason
    assert chains.survival < 1.0
    for event in chains.blow_ups:
        after = chains.ages[event.replica, event.step // 10 - 1]
        assert after == 0
        assert not chains.counts[event.replica, event.step // 10 - 1]
    # frames are of whole molecules only
    broken = [LIMITS.blow_up(f) for f in chains.positions[chains.counts].astype(float)]
    assert not any(broken)


def test_survival_by_hand():
    frames = np.zeros((4, 40, 1, 3), dtype=np.float32)
    times = np.zeros((4, 40))
    ages = np.ones((4, 40), dtype=int)
    events = (
        BlowUp(2, 100, ""),
        BlowUp(2, 300, ""),
        BlowUp(0, 200, ""),
    )
    chains = SampledChains(SETTINGS, frames, times, times, ages, events)
    assert chains.survivors.tolist() == [False, True, False, True]
    assert chains.survival == 0.5
    when, alive = chains.survival_curve()
    assert when.tolist() == [0.0, 0.05, 0.1, 0.2]
    assert alive.tolist() == [1.0, 0.75, 0.5, 0.5]
    whole = replace(chains, blow_ups=())
    assert whole.survival_curve()[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_chains": 2}, "2 chains; expected 4 or more"),
        ({"steps": 50}, "leave 4 frames"),
        ({"discard": 399}, "leave 0 frames"),
        ({"record_every": 0}, "record_every is 0"),
        ({"temperature_K": -5.0}, "temperature_K is -5.0"),
    ],
)
def test_settings_that_no_run_can_have(wrong: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **wrong)
