"""Read the golden files: outputs of the public code for random weights."""

from pathlib import Path
from typing import NamedTuple

import ase
import numpy as np
import torch

from crack_md.graph import AtomGraph

HERE = Path(__file__).parent / "data"
SCALE, SHIFT = 2.887317180633545, -0.7554450631141663
PAIRS = (
    "eqv2_fairchem_v1_tiny",
    "eqv2_fairchem_v1_wide",
    "eqv2_fairchem_v1_strong",
    "crack_official_tiny",
)


class GoldenSystem(NamedTuple):
    """One structure with the inputs and outputs of the public code."""

    atoms: ase.Atoms
    graph: AtomGraph
    frames: torch.Tensor
    energy: float
    """eV, scale and shift applied; for the frames given."""
    forces: np.ndarray
    features: np.ndarray | None


def golden_systems(path: Path) -> list[GoldenSystem]:
    """Return all systems of an npz file."""
    data = np.load(path)
    count = sum(name.endswith("_numbers") for name in data)
    return [_system(data, index) for index in range(count)]


def _system(data: np.lib.npyio.NpzFile, index: int) -> GoldenSystem:
    def get(name: str) -> np.ndarray:
        return data[f"{index}_{name}"]

    features = f"{index}_x_student_k0"
    graph, frames = _table(
        get("numbers"), get("edge_index"), get("edge_vec"), get("edge_rot")
    )
    return GoldenSystem(
        atoms=ase.Atoms(get("numbers"), get("positions"), cell=get("cell"), pbc=True),
        graph=graph,
        frames=as_the_public_code_rounds(frames),
        energy=float(get("energy_k0")) * SCALE + SHIFT,
        forces=get("forces_k0") * SCALE,
        features=data.get(features),
    )


def _table(
    numbers: np.ndarray, edge_index: np.ndarray, vectors: np.ndarray, rot: np.ndarray
) -> tuple[AtomGraph, torch.Tensor]:
    """Return the edge list as a table.

    With all atoms at the origin of a unit cell, the shifts *are* the edge vectors, so
    that the very numbers of the file reach the network.
    """
    atoms = len(numbers)
    width = int(np.bincount(edge_index[1]).max())
    neighbors = np.repeat(np.arange(atoms)[:, None], width, axis=1)
    shift = np.zeros((atoms, width, 3), dtype=np.float32)
    frames = np.broadcast_to(np.eye(3, dtype=np.float32), (atoms, width, 3, 3)).copy()
    mask = np.zeros((atoms, width), dtype=bool)
    for edge, (sender, receiver) in enumerate(edge_index.T):
        slot = mask[receiver].sum()
        neighbors[receiver, slot] = sender
        shift[receiver, slot] = vectors[edge]
        frames[receiver, slot] = rot[edge]
        mask[receiver, slot] = True
    graph = AtomGraph(
        positions=torch.zeros(atoms, 3),
        atomic_numbers=torch.from_numpy(numbers),
        cell=torch.eye(3).unsqueeze(0),
        pbc=torch.ones(1, 3, dtype=torch.bool),
        batch=torch.zeros(atoms, dtype=torch.long),
        neighbors=torch.from_numpy(neighbors),
        cell_shift=torch.from_numpy(shift),
        mask=torch.from_numpy(mask),
    )
    return graph, torch.from_numpy(frames)


def as_the_public_code_rounds(frames: torch.Tensor) -> torch.Tensor:
    """Return the rotations that the public code really applied.

    It takes Euler angles of the frames in float32. Near the poles their arc cosine
    loses half of the digits: up to 1e-5 in the rotation, 3e-5 in the forces of the
    strong weights. Ours are polynomials of the matrix and lose nothing, so the loss
    must be put in to compare at 1e-5.
    """
    axis = torch.nn.functional.normalize(frames[..., 1], dim=-1)
    alpha = torch.atan2(axis[..., 0], axis[..., 2])
    beta = torch.acos(axis[..., 1].clamp(-1, 1))
    rest = (_about_y(alpha) @ _about_x(beta)).transpose(-1, -2) @ frames
    gamma = torch.atan2(rest[..., 0, 2], rest[..., 0, 0])
    exact = [angle.double() for angle in (alpha, beta, gamma)]
    rebuilt = _about_y(exact[0]) @ _about_x(exact[1]) @ _about_y(exact[2])
    return rebuilt.float()


def _about_y(angle: torch.Tensor) -> torch.Tensor:
    c, s, one, zero = _entries(angle)
    return torch.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).unflatten(
        -1, (3, 3)
    )


def _about_x(angle: torch.Tensor) -> torch.Tensor:
    c, s, one, zero = _entries(angle)
    return torch.stack([one, zero, zero, zero, c, -s, zero, s, c], -1).unflatten(
        -1, (3, 3)
    )


def _entries(angle: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
