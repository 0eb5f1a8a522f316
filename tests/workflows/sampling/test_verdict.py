from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crack_md.workflows.sampling.analysis import Analysis, Convergence
from crack_md.workflows.sampling.check import ChainSummary, Verdict, judge
from crack_md.workflows.sampling.metrics import Comparison, Metric
from crack_md.workflows.sampling.temperature import Temperature, Thermometers

GOOD = Thermometers(Temperature(510.0, 30.0), Temperature(505.0, 5.0))
STEADY = ChainSummary(1.0, Temperature(501.0, 2.0), "gradient")


def metric(**changes: Any) -> Metric:
    whole = Metric("energy", "energy", "W1", "meV", 9.0, 6.0, 6.0)
    return replace(whole, **changes)


def analysis(*metrics: Metric, **changes: Any) -> Analysis:
    converged = tuple(
        Convergence(name, 1.01, 400.0, 5000)
        for name in ("energy", "radius of gyration", "C–C–O–H")
    )
    empty = np.zeros((8, 1))
    compared = Comparison(
        "energy", "energy", np.zeros(2), empty, empty, metrics or (metric(),)
    )
    found = Analysis(
        (compared,), converged, converged, {"any": 0}, 0.0, 0.0, 5000, 5000
    )
    return replace(found, **changes)


def spurious(count: int, error: float = 0.0, **changes: Any) -> Analysis:
    n_frames = changes.get("n_frames", 5000)
    return analysis(
        n_spurious={"any": count},
        spurious_fraction=count / n_frames,
        spurious_error=error,
        **changes,
    )


def verdict(found: Analysis, **changes: Any) -> Verdict:
    options = {"thermometers": GOOD, "temperature_K": 500.0, "dynamics": STEADY}
    return judge(found, **{**options, **changes})


def converged(name: str, r_hat: float, size: float) -> tuple[Convergence, ...]:
    others = [one for one in analysis().sample_convergence if one.name != name]
    return (*others, Convergence(name, r_hat, size, 5000))


def test_all_is_well():
    assert verdict(analysis()) == Verdict("PASS", (), ())
    assert verdict(analysis(metric(value=12.0))).status == "PASS"  # twice the floor
    assert verdict(analysis()).exit_code == 0
    assert verdict(analysis(), dynamics=None).status == "PASS"


def test_twice_the_floor_and_more_fails():
    found = verdict(analysis(metric(), metric(value=12.1)))
    assert (found.status, found.exit_code) == ("FAIL", 1)
    assert found.failures == (
        "energy: Wasserstein distance 12.1 meV, 2.0 times the noise floor",
    )
    assert verdict(analysis(metric(value=float("nan")))).status != "PASS"


@pytest.mark.parametrize(
    ("unsure", "excuse"),
    [
        (analysis(metric(value=30.0, sample_floor=16.0)), "is as far from itself"),
        (
            analysis(
                metric(value=30.0), sample_convergence=converged("energy", 1.2, 400.0)
            ),
            "has not converged",
        ),
        (
            analysis(
                metric(value=30.0), sample_convergence=converged("energy", 1.0, 20.0)
            ),
            "has not converged",
        ),
        (
            analysis(
                metric(value=29.0),
                reference_convergence=converged("C–C–O–H", 1.0, 20.0),
            ),
            "the reference is short",
        ),
    ],
)
def test_what_may_be_noise_is_no_failure(unsure: Analysis, excuse: str):
    found = verdict(unsure)
    assert (found.status, found.exit_code) == ("INCONCLUSIVE", 2)
    assert any(told.endswith(excuse) for told in found.doubts)


def test_a_metric_waits_for_what_it_depends_on():
    slow = converged("C–C–O–H", 1.2, 30.0)
    torsion = metric(observable="C–C–O–H", kind="torsion", value=30.0)
    distance = metric(observable="C–C", kind="distance", value=30.0)
    for one, status in ((metric(value=30.0), "FAIL"), (torsion, "INCONCLUSIVE")):
        assert verdict(analysis(one, sample_convergence=slow)).status == status
    assert verdict(analysis(distance, sample_convergence=slow)).status == "INCONCLUSIVE"
    assert verdict(analysis(distance)).status == "FAIL"


def test_gross_energies_fail_even_beside_a_short_reference():
    short = converged("C–C–O–H", 1.0, 20.0)
    gross = analysis(metric(value=31.0), reference_convergence=short)
    assert verdict(gross).status == "FAIL"
    torsion = metric(observable="C–C–O–H", kind="torsion", value=300.0)
    assert (
        verdict(analysis(torsion, reference_convergence=short)).status == "INCONCLUSIVE"
    )


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (spurious(0), "PASS"),
        (spurious(5), "PASS"),
        (spurious(6), "FAIL"),
        # chance: a frame more or less
        (spurious(6, error=2e-4), "INCONCLUSIVE"),
        # one chain of eight is stuck, which makes a large error
        (spurious(625, error=0.125), "FAIL"),
        # 400 frames may miss what has a probability of 7e-3
        (spurious(30, n_reference=400), "INCONCLUSIVE"),
        (spurious(60, n_reference=400), "FAIL"),
    ],
)
def test_one_spurious_frame_in_a_thousand(found: Analysis, status: str):
    assert verdict(found).status == status


def test_survival():
    assert verdict(analysis(), dynamics=replace(STEADY, survival=0.99)).status == "PASS"
    found = verdict(analysis(), dynamics=replace(STEADY, survival=15 / 16))
    assert found.failures == ("0.94 of the chains lived to the end, not 0.99",)


@pytest.mark.parametrize(
    ("thermometers", "told"),
    [
        (Thermometers(None, None), "has no forces"),
        (replace(GOOD, virial=Temperature(651.0, 30.0)), "651 ± 30 K, more than 30%"),
        (replace(GOOD, bonds=Temperature(560.0, 5.0)), "give its --temperature"),
    ],
)
def test_a_reference_that_cannot_decide(thermometers: Thermometers, told: str):
    found = verdict(analysis(), thermometers=thermometers)
    assert found.status == "INCONCLUSIVE"
    assert told in found.doubts[0]
    # nor can it show that a model is wrong
    far = verdict(analysis(metric(value=60.0)), thermometers=thermometers)
    assert far.status == "INCONCLUSIVE"
    # but a model that falls apart is
    torn = replace(STEADY, survival=0.5)
    bad = verdict(analysis(), thermometers=thermometers, dynamics=torn)
    assert bad.status == "FAIL"


def test_direct_forces_are_never_samples_of_a_boltzmann_distribution():
    direct = replace(STEADY, forces_kind="direct")
    found = verdict(analysis(), dynamics=direct)
    assert found.status == "INCONCLUSIVE"
    assert "forces are direct" in found.doubts[0]
    assert "Boltzmann" not in " ".join(found.doubts)
    assert verdict(analysis(metric(value=30.0)), dynamics=direct).status == "FAIL"


def test_chains_that_move_too_fast():
    hot = replace(STEADY, kinetic=Temperature(520.0, 2.0))
    assert "the chains move at 520 ± 2 K" in verdict(analysis(), dynamics=hot).doubts[0]
    unsure = replace(STEADY, kinetic=Temperature(520.0, 6.0))
    assert verdict(analysis(), dynamics=unsure).status == "PASS"


@pytest.mark.parametrize(
    ("r_hat", "size"), [(1.05, 400.0), (float("nan"), 400.0), (1.0, 49.0)]
)
def test_too_little_sampling(r_hat: float, size: float):
    found = analysis(sample_convergence=converged("C–C–O–H", r_hat, size))
    assert verdict(found).status == "INCONCLUSIVE"
    assert verdict(found).doubts[0].startswith("C–C–O–H: ")
