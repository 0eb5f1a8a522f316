"""Nequix as a teacher: energies, forces and the invariants that its readout reads.

The package `nequix` (MIT) holds the architecture; the published weights are stored for
JAX and are converted to PyTorch once, into a cache folder of the user, because JAX
compiles anew for every size of structure.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.errors import MissingDependencyError, TeacherError
from crack_md.models.teachers.base import TeacherLabels, file_sha256, predict_in_batches
from crack_md.neighbors import all_pairs


class NequixTeacher:
    """A Nequix model that labels structures in small batches.

    Args:
        path: Weights as published (`.nqx`) or converted (`.pt`).
        device: Where to evaluate.
        atoms_per_batch: How many atoms share one forward pass. Its tensor products
            are limited by memory traffic: on a CPU, batches beyond a pair of small
            cells get slower per atom.
    """

    has_features = has_node_energy = True
    energy_reference = "total"

    def __init__(
        self,
        path: Path | str,
        *,
        device: torch.device | str = "cpu",
        atoms_per_batch: int | None = None,
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise TeacherError(
                f"no Nequix weights at {path}; expected a .nqx or .pt file"
            )
        self.name = path.stem
        self.sha256 = file_sha256(path)
        self.device = torch.device(device)
        self.atoms_per_batch = atoms_per_batch or (
            40 if self.device.type == "cpu" else 4000
        )
        network, config = _load(path, self.sha256)
        # Any: the package brings no types
        self._network: Any = network.to(self.device).eval().requires_grad_(False)
        self._index = {
            number: index
            for index, number in enumerate(sorted(config["atomic_numbers"]))
        }
        self.cutoff = float(config["cutoff"])
        self.elements: frozenset[int] | None = frozenset(self._index)

    def predict(self, atoms: Sequence[Atoms]) -> list[TeacherLabels]:
        """Return energies, forces and invariant node features of every structure."""
        return predict_in_batches(
            self, atoms, self._predict_batch, atoms_per_batch=self.atoms_per_batch
        )

    def _predict_batch(self, structures: list[Atoms]) -> list[TeacherLabels]:
        species, positions, edges, shifts = self._graph(structures)
        captured: list[Tensor] = []
        hook = self._network.readout.register_forward_pre_hook(
            lambda _, inputs: captured.append(inputs[0].detach())
        )
        try:
            with torch.enable_grad():
                positions.requires_grad_(True)
                vectors = positions[edges[0]] - positions[edges[1]] + shifts
                energies = self._network.node_energies(
                    vectors, species, edges[0], edges[1]
                )[:, 0]
                (gradient,) = torch.autograd.grad(energies.sum(), positions)
        finally:
            hook.remove()
        sizes = [len(one) for one in structures]
        per_structure = zip(
            energies.detach().double().split(sizes),
            gradient.neg().double().split(sizes),
            captured[0].float().split(sizes),
            strict=True,
        )
        return [
            TeacherLabels(
                energy=float(energy.sum()),
                forces=forces.cpu().numpy(),
                node_features=features.unsqueeze(1).cpu().numpy(),
                node_energy=energy.cpu().numpy(),
            )
            for energy, forces, features in per_structure
        ]

    def _graph(
        self, structures: list[Atoms]
    ) -> tuple[
        Int[Tensor, " atom"],
        Float[Tensor, "atom 3"],
        Int[Tensor, "2 edge"],
        Float[Tensor, "edge 3"],
    ]:
        """Return species, positions, (sender, receiver) edges and shifts in Å."""
        edges, shifts, first = [], [], 0
        for one in structures:
            pairs = all_pairs(one, self.cutoff)
            edges.append(np.stack([pairs.sender, pairs.receiver]) + first)
            shifts.append(pairs.shift @ one.cell.array)
            first += len(one)
        numbers = np.concatenate([one.numbers for one in structures])
        positions = np.concatenate([one.positions for one in structures])
        return (
            torch.tensor([self._index[int(z)] for z in numbers], device=self.device),
            torch.as_tensor(positions, dtype=torch.float32, device=self.device),
            torch.as_tensor(np.concatenate(edges, axis=1), device=self.device).long(),
            torch.as_tensor(
                np.concatenate(shifts), dtype=torch.float32, device=self.device
            ),
        )


def _load(path: Path, sha256: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    try:
        from nequix.torch_impl.model import load_model as load_torch
    except ImportError as error:
        raise MissingDependencyError.of(
            "nequix", extra="nequix", purpose="the Nequix teacher"
        ) from error
    converted = path if path.suffix == ".pt" else _converted(path, sha256)
    try:
        return load_torch(str(converted))
    except Exception as error:
        raise TeacherError(
            f"cannot read Nequix weights from {path}: {error}; expected a file "
            "published with the nequix package"
        ) from error


def _converted(path: Path, sha256: str) -> Path:
    """Return the PyTorch form of published weights, made on first use."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    target = Path(base) / "crack-md" / "teachers" / f"{sha256}.pt"
    if target.is_file():
        return target
    from nequix.model import load_model as load_jax
    from nequix.torch_impl.model import save_model
    from nequix.torch_impl.utils import convert_model_jax_to_torch

    try:
        network, config = convert_model_jax_to_torch(*load_jax(str(path)), False)
    except Exception as error:
        raise TeacherError(
            f"cannot read Nequix weights from {path}: {error}; expected the .nqx file "
            "as published"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=target.parent, delete=False) as temporary:
        save_model(temporary.name, network, config)
    Path(temporary.name).replace(target)
    return target
