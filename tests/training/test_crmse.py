"""A false well: energies and forces of data leave it full, CRMSE empties it."""

import numpy as np
import pytest
import torch

from crack_md.calculators.replicas.langevin import Langevin
from crack_md.training.crmse import (
    ChainBounds,
    ChainContrast,
    Chains,
    ContrastWeight,
    gradient_norm,
)
from crack_md.training.loop.objective import Objective
from crack_md.training.losses import CrmseLoss, EnergyLoss, ForceLoss, WeightedTerm
from tests.training.double_well import (
    GRID,
    TEMPERATURE_K,
    Well,
    WellForces,
    atoms_at,
    batch_at,
    graph_at,
    sample_truth,
    share_right,
    truth,
)

BETA = 10.0


def objective_of(well: Well, *, weight: float = 0.0) -> Objective:
    terms = [
        WeightedTerm(EnergyLoss("task", 0.1, per_atom=False), 1.0),
        WeightedTerm(ForceLoss("task", 0.1), 1.0),
    ]
    if weight:
        terms.append(WeightedTerm(CrmseLoss(BETA), weight))
    return Objective(well, terms)


def contrast_of(well: Well, *, n_chains: int, weight: ContrastWeight) -> ChainContrast:
    starts = atoms_at(sample_truth(n_chains, np.random.default_rng(1)))
    free = ChainBounds(
        bonds=np.empty((0, 2), dtype=np.int64),
        bond_means=np.empty(0),
        energy_mean=0.0,
        thermal_spread=0.1 * np.sqrt(1.5),
        highest_energy=np.inf,
    )
    chains = Chains(
        starts,
        WellForces(well),
        [free] * n_chains,
        Langevin(TEMPERATURE_K, friction_per_ps=10.0, timestep_fs=2.0),
        steps=10,
    )
    return ChainContrast(
        chains, lambda all_: graph_at(all_.replicas.state.positions), weight=weight
    )


def train(well: Well, contrast: ChainContrast | None, *, n_steps: int) -> None:
    objective = objective_of(well, weight=0.0 if contrast is None else 1.0)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    rng = np.random.default_rng(0)
    data = sample_truth(400, rng)
    for step in range(n_steps):
        batch = batch_at(data[rng.integers(len(data), size=32)])
        if contrast is not None:
            batch = contrast.joined(batch, objective, step)
        optimizer.zero_grad()
        objective(batch).total.backward()
        optimizer.step()


def test_chains_empty_the_false_well_that_data_cannot_see() -> None:
    right = share_right(truth(torch.from_numpy(GRID)).numpy())
    assert right < 1e-3
    plain = Well()
    assert plain.share_right() > 0.9
    train(plain, None, n_steps=300)
    assert plain.share_right() > 0.9, "energies and forces do not reach that far"
    healed = Well()
    weight = ContrastWeight(0.5, every=10)
    train(healed, contrast_of(healed, n_chains=16, weight=weight), n_steps=300)
    # 16 chains do not resolve less than a sixteenth
    assert healed.share_right() < 0.12
    x = torch.from_numpy(sample_truth(400, np.random.default_rng(5))[:, 0])
    with torch.no_grad():
        error = (healed.along(x) - truth(x)).square().mean().sqrt()
    assert error < 0.02, "eV, on data: the price of the cure"


def test_weight_is_a_share_of_the_gradient() -> None:
    well = Well()
    objective = objective_of(well, weight=1.0)
    contrast = contrast_of(well, n_chains=4, weight=ContrastWeight(0.2, every=3))
    batch = batch_at(sample_truth(8, np.random.default_rng(2)))
    joined = contrast.joined(batch, objective, 0)
    values = objective.values(joined)
    own = objective.weights["crmse"] * gradient_norm(values["crmse"], objective)
    rest = values["task_energy"] + values["task_forces"]
    assert float(own / gradient_norm(rest, objective)) == pytest.approx(0.2)
    found = objective.weights["crmse"]
    contrast.joined(batch, objective, 1)
    assert objective.weights["crmse"] == found, "not yet"
    contrast.joined(batch, objective, 3)
    assert objective.weights["crmse"] != found


def test_chains_sample_what_the_model_says() -> None:
    """In the false well nearly all of them end, as exp(−βU) of this model demands."""
    well = Well()
    contrast = contrast_of(well, n_chains=16, weight=ContrastWeight(0.2, every=10))
    assert (contrast.chains.replicas.state.positions[:, 0] < 0).all()
    contrast.chains.advance(2000)
    right = (contrast.chains.replicas.state.positions[:, 0] > 0).mean()
    assert right > 0.8
    assert contrast.chains.report()["chain_energy_eV"] < -0.1


def test_hot_chains_are_worth_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    well = Well()
    objective = objective_of(well, weight=1.0)
    contrast = contrast_of(well, n_chains=4, weight=ContrastWeight(0.2, every=10))
    contrast.report(objective)
    assert not caplog.records
    with torch.no_grad():
        well.coefficients += 1.0  # all energies rise by about an eV and more
    contrast.chains.advance(1)
    contrast.report(objective)
    contrast.report(objective)
    assert len(caplog.records) == 1
    assert "lower optimizer.lr" in caplog.text
