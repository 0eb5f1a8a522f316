"""Nequix with PyTorch, uncompiled and without kernels of its own: its CPU path."""

import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import peer
import torch
from ase import Atoms
from nequix.calculator import NequixCalculator
from nequix.data import dict_to_pytorch_geometric, preprocess_graph
from nequix.torch_impl.model import scatter
from torch_geometric.data import Batch


def start(threads: int) -> None:
    """Set the number of threads; the libraries are imported by now."""
    torch.set_num_threads(threads)


def load(options: dict[str, Any]) -> peer.Peer:
    """Return the model of ``weights`` on ``device``.

    Nequix writes a converted file beside the weights and takes a GPU where it sees
    one: it gets a copy, and the worker hides the GPU where the CPU is asked for.
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder) / Path(options["weights"]).name
        shutil.copyfile(options["weights"], copy)
        calculator = NequixCalculator(
            model_path=str(copy), backend="torch", use_kernel=False, use_compile=False
        )
    return Nequix(calculator, options["device"])


class Nequix(peer.TorchPeer):
    """The calculator of the package, and its model for batches."""

    def __init__(self, calculator: NequixCalculator, device: str) -> None:
        super().__init__(device)
        if calculator.device.type != torch.device(device).type:
            raise ValueError(f"Nequix runs on {calculator.device}, not on {device}")
        self._calculator = calculator
        self.about = {
            "weights": sum(p.numel() for p in calculator.model.parameters()),
            "versions": {name: version(name) for name in ("nequix", "torch", "jax")},
        }

    def calculator(self) -> NequixCalculator:
        """Return the calculator of the package."""
        return self._calculator

    def evaluate(self, structures: list[Atoms]) -> peer.Answer:
        """Return energies and forces of structures in one pass."""
        graph = self._graph(structures)
        atomic, forces = self._forward(graph)
        energies = scatter(atomic, graph.batch, dim=0, dim_size=len(structures))
        ends = np.cumsum([len(one) for one in structures])[:-1]
        energies = energies.detach().cpu().flatten().tolist()
        return energies, np.split(forces.detach().cpu().numpy(), ends)

    def network(self, structures: list[Atoms]) -> Any:
        """Return the pass through the model with its graph given."""
        graph = self._graph(structures)
        return lambda: self._forward(graph)

    def _graph(self, structures: list[Atoms]) -> Any:
        parts = [
            dict_to_pytorch_geometric(
                preprocess_graph(
                    one, self._calculator.atom_indices, self._calculator.cutoff, False
                )
            )
            for one in structures
        ]
        return Batch.from_data_list(parts).to(self._calculator.device)

    def _forward(self, graph: Any) -> tuple[torch.Tensor, torch.Tensor]:
        atomic, forces, _ = self._calculator.model(
            graph.x,
            graph.positions,
            graph.edge_attr,
            graph.edge_index,
            graph.cell,
            graph.n_node,
            graph.n_edge,
            graph.batch,
        )
        return atomic, forces
