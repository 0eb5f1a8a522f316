"""Our own models, as users call them."""

import dataclasses
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peer
import torch
from ase import Atoms

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from crack_md import CrackCalculator, __version__
from crack_md.graph import batch_graphs
from crack_md.models.checkpoint import load_model
from crack_md.neighbors import build_graph


def start(threads: int) -> None:
    """Set the number of threads; the libraries are imported by now."""
    torch.set_num_threads(threads)


def load(options: dict[str, Any]) -> peer.Peer:
    """Return the model of a file or name.

    Args:
        options: ``model``, ``device``, ``dtype`` ("tf32" is float32 with products that
            round their factors to TF32), ``compile``; ``any_element`` lets the model
            answer for elements it was not trained on, whose time is the same.
    """
    device, dtype = options["device"], options.get("dtype", "float32")
    model = load_model(options["model"])
    if options.get("any_element"):
        every = tuple(range(1, model.network.config.num_elements))
        model.metadata = dataclasses.replace(model.metadata, elements=every)
    # compiled times of a model that goes on uncompiled would be a lie
    warnings.filterwarnings("error", message=".*it goes on uncompiled")
    calculator = CrackCalculator(
        model, device=device, dtype=dtype, compile=options.get("compile", False)
    )
    return Crack(calculator, device)


class Crack(peer.TorchPeer):
    """`CrackCalculator`, and the bare model."""

    def __init__(self, calculator: CrackCalculator, device: str) -> None:
        super().__init__(device)
        self._calculator = calculator
        (self.model,) = calculator.models
        (self.engine,) = calculator.engines
        self.about = {
            "weights": sum(p.numel() for p in self.model.parameters()),
            "forces": calculator.forces_kind,
            "versions": {
                "crack-md": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def calculator(self) -> CrackCalculator:
        """Return the calculator that users make."""
        return self._calculator

    def evaluate(self, structures: list[Atoms]) -> peer.Answer:
        """Return energies and forces of structures, in as many passes as are fast."""
        found = self._calculator.calculate_many(structures, ["energy", "forces"])
        for results in found:
            if isinstance(results, Exception):
                raise results
        return [one["energy"] for one in found], [one["forces"] for one in found]

    def network(self, structures: list[Atoms]) -> Callable[[], Any]:
        """Return the pass through the model with its table of neighbors given."""
        graph = self._graph(structures)

        def call() -> Any:
            with torch.no_grad():
                return self.engine(graph)

        return call

    def count(self, case: peer.Case) -> tuple[float, float]:
        """Return operations and bytes of one uncompiled evaluation."""
        from benchmarks import costs  # not a part of a cold start

        graph = self._graph(case.structures)
        return costs.count(self.model, graph)

    def rates(self, dtype: str) -> tuple[float, float]:
        """Return operations/s of a large product and bytes/s of a large copy."""
        from benchmarks import costs

        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        return costs.machine_rates(self.model.device, kind)

    def _graph(self, structures: list[Atoms]) -> Any:
        model = self.model
        return batch_graphs(
            [
                build_graph(one, model.rule, dtype=model.dtype, device=model.device)
                for one in structures
            ]
        )
