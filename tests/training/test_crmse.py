"""A false well: energies and forces of data leave it full, CRMSE empties it."""

import numpy as np
import pytest
import torch

from crack_md.calculators.replicas.langevin import Langevin
from crack_md.graph import AtomGraph
from crack_md.training.crmse.chains import ChainBounds, Chains
from crack_md.training.crmse.contrast import ChainContrast, energy_gap
from crack_md.training.data.frames import Batch
from crack_md.training.loop.objective import Objective
from crack_md.training.losses import CrmseLoss, EnergyLoss, ForceLoss, WeightedTerm
from tests.training.double_well import (
    GRID,
    TEMPERATURE_K,
    Well,
    WellForces,
    atoms_at,
    batch_at,
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


def contrast_of(well: Well, *, n_chains: int) -> ChainContrast:
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
    return ChainContrast(chains)


def train(
    well: Well, contrast: ChainContrast | None, *, n_steps: int, weight: float = 0.0
) -> None:
    objective = objective_of(well, weight=weight)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    rng = np.random.default_rng(0)
    data = sample_truth(400, rng)
    for _ in range(n_steps):
        batch = batch_at(data[rng.integers(len(data), size=32)])
        if contrast is not None:
            batch = contrast.joined(batch)
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
    train(healed, contrast_of(healed, n_chains=16), n_steps=300, weight=0.3)
    # 16 chains do not resolve less than a sixteenth
    assert healed.share_right() < 0.12
    x = torch.from_numpy(sample_truth(400, np.random.default_rng(5))[:, 0])
    with torch.no_grad():
        error = (healed.along(x) - truth(x)).square().mean().sqrt()
    assert error < 0.02, "eV, on data: the price of the cure"


class Shifted(Well):
    """A well whose energies of frames on the right are too high by some eV."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def energy(self, graph: AtomGraph) -> torch.Tensor:
        x = graph.positions[:, 0]
        return truth(x) + self.shift * (x > 0)


class Placed:
    """Frames at given places on the line."""

    def __init__(self, *places: float) -> None:
        self.positions = np.array([[x, 0.0, 0.0] for x in places])

    def __len__(self) -> int:
        return len(self.positions)

    def batch(self, frames: torch.Tensor, *, device: torch.device) -> Batch:
        with torch.enable_grad():  # DFT's forces are slopes
            return batch_at(self.positions[frames.numpy()])


@pytest.mark.wrong_types
def test_gap_is_the_difference_of_mean_errors() -> None:
    train_, validation = Placed(-1.0, -0.9, 1.0), Placed(-1.1, 0.9, 1.2, 0.8)
    gap = energy_gap(Shifted(0.4), train_, validation)  # type: ignore[arg-type]
    assert gap == pytest.approx(0.4 * 3 / 4 - 0.4 / 3)


@pytest.mark.wrong_types
@pytest.mark.parametrize(("shift", "weight"), [(0.4, 0.5), (-0.4, 1.0)])
def test_a_gap_above_zero_halves_the_weight(shift: float, weight: float) -> None:
    well = Shifted(shift)
    objective = objective_of(well, weight=1.0)
    contrast = contrast_of(well, n_chains=2)
    found = contrast.watch(
        objective,
        Placed(-1.0, -0.9),  # type: ignore[arg-type]
        Placed(-1.0, 1.0),  # type: ignore[arg-type]
    )
    assert found["gap_meV"] == pytest.approx(1000 * shift / 2)
    assert found["crmse_weight"] == objective.weights["crmse"] == weight


def test_chains_sample_what_the_model_says() -> None:
    """In the false well nearly all of them end, as exp(−βU) of this model demands."""
    well = Well()
    contrast = contrast_of(well, n_chains=16)
    assert (contrast.chains.replicas.state.positions[:, 0] < 0).all()
    contrast.chains.advance(2000)
    right = (contrast.chains.replicas.state.positions[:, 0] > 0).mean()
    assert right > 0.8
    assert contrast.chains.report()["chain_energy_eV"] < -0.1


def test_hot_chains_are_worth_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    well = Well()
    objective = objective_of(well, weight=1.0)
    contrast = contrast_of(well, n_chains=4)
    contrast.report(objective)
    assert not caplog.records
    with torch.no_grad():
        well.coefficients.add_(1.0)  # all energies rise by about an eV and more
    contrast.chains.advance(1)
    contrast.report(objective)
    contrast.report(objective)
    assert len(caplog.records) == 1
    assert "lower optimizer.lr" in caplog.text
