"""A potential on a line with two wells, one of them false, as a student."""

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor, nn

from crack_md.graph import AtomGraph, sum_over_structures
from crack_md.models.force_field import ForceField, Prediction
from crack_md.training.data.frames import Batch, Labels
from tests.training.losses.test_crmse import points

TEMPERATURE_K = 0.1 / units.kB  # kT = 0.1 eV
GRID = np.linspace(-2.0, 2.0, 2001)
CENTRES = torch.linspace(-2.2, 2.2, 23, dtype=torch.float64)
WIDTH = 0.3
STIFFNESS = 4.0


def truth(x: Tensor) -> Tensor:
    """Return DFT's energies in eV: a well at −1 Å, another 1 eV higher at 1 Å."""
    return 0.1 * (x**2 - 1) ** 2 + 0.5 * (x + 1)


class Well(ForceField):
    """Energies Σ c φ(x) of Gaussians, and springs in the other two directions."""

    def __init__(self) -> None:
        nn.Module.__init__(self)  # a force field in its manners alone, without network
        basis = self._basis(torch.from_numpy(GRID))
        wrong = truth(torch.from_numpy(GRID)) - 1.5 * torch.exp(
            -(((torch.from_numpy(GRID) - 1) / 1.0) ** 2)
        )
        start = torch.linalg.lstsq(basis, wrong, rcond=1e-8, driver="gelsd").solution
        self.coefficients = nn.Parameter(start)

    @staticmethod
    def _basis(x: Tensor) -> Tensor:
        return torch.exp(-(((x[:, None] - CENTRES) / WIDTH) ** 2))

    def along(self, x: Tensor) -> Tensor:
        """Return energies in eV at places on the line."""
        # beyond the Gaussians nothing holds an atom
        walls = 2.0 * torch.relu(x.abs() - 2.0) ** 2
        return self._basis(x) @ self.coefficients + walls

    def energy(self, graph: AtomGraph) -> Tensor:
        """Return the energies of structures, each a single atom."""
        x, *rest = graph.positions.double().T
        atomic = self.along(x) + STIFFNESS / 2 * sum(one**2 for one in rest)
        return sum_over_structures(atomic, graph)

    def forward(self, graph: AtomGraph) -> Prediction:
        """Return energies and forces that training can differentiate."""
        positions = graph.positions.double().detach().requires_grad_()
        energy = self.energy(graph._replace(positions=positions))
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        return Prediction(energy, -gradient, None, positions.new_zeros(0, 1, 1))

    def share_right(self) -> float:
        """Return the exact probability of x > 0 at the temperature of the data."""
        with torch.no_grad():
            return share_right(self.along(torch.from_numpy(GRID)).numpy())


class WellForces:
    """The same as chains see it."""

    def __init__(self, well: Well) -> None:
        self.well = well

    def forces(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return energies and forces of many atoms, each alone."""
        found = self.well(graph_at(positions))
        return found.energy.detach().numpy(), found.forces.detach().numpy()

    def graph(self, positions: np.ndarray) -> AtomGraph:
        """Return the structures that losses ask about."""
        return graph_at(positions)


def graph_at(positions: np.ndarray) -> AtomGraph:
    """Return as many structures of one hydrogen atom."""
    graph = points(*([1] for _ in positions))
    return graph._replace(positions=torch.from_numpy(positions))


def share_right(energies: np.ndarray) -> float:
    """Return the probability of x > 0 for energies in eV on the grid."""
    weights = np.exp(-(energies - energies.min()) / 0.1)
    return float(weights[GRID > 0].sum() / weights.sum())


def sample_truth(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return exact samples of DFT's distribution, (frame, 3) in Å."""
    weights = np.exp(-truth(torch.from_numpy(GRID)).numpy() / 0.1)
    x = rng.choice(GRID, n_frames, p=weights / weights.sum())
    other = rng.normal(scale=np.sqrt(0.1 / STIFFNESS), size=(n_frames, 2))
    return np.column_stack([x, other])


def batch_at(positions: np.ndarray) -> Batch:
    """Return frames with DFT's labels."""
    graph = graph_at(positions)
    x = graph.positions[:, 0].clone().requires_grad_()
    energy = truth(x)
    (slope,) = torch.autograd.grad(energy.sum(), x)
    rest = graph.positions[:, 1:]
    energy = energy.detach() + STIFFNESS / 2 * (rest**2).sum(dim=1)
    forces = torch.cat([-slope[:, None], -STIFFNESS * rest], dim=1)
    n_frames = len(positions)
    labels = Labels(
        energy, forces, torch.ones(n_frames).bool(), torch.ones(n_frames).long()
    )
    return Batch(graph, labels, None)


def atoms_at(positions: np.ndarray) -> list[Atoms]:
    """Return the frames as ASE has them."""
    return [Atoms("H", [position]) for position in positions]
