"""Engines and memory for tests: they count, and are exhausted on demand."""

import weakref
from collections.abc import Callable
from typing import Any

import torch

from crack_md.calculators.engine import EagerEngine
from crack_md.graph import AtomGraph
from crack_md.models.force_field import ForceField, Prediction


class CountingEngine(EagerEngine):
    """Keeps how many atoms each pass had; refuses passes of more than `room` atoms."""

    def __init__(self, model: ForceField, *, room: int = 10**9) -> None:
        super().__init__(model)
        self.room = room
        self.passes: list[int] = []
        self.refused: list[int] = []
        self.held: list[weakref.ref[torch.Tensor]] = []
        """Memory of passes that were refused; dead once it can be used again."""

    def __call__(self, graph: AtomGraph, *, stress: bool = False) -> Prediction:
        assert not any(tensor() is not None for tensor in self.held)
        if graph.n_atoms > self.room:
            tensor = torch.zeros(1)
            self.held.append(weakref.ref(tensor))
            self.refused.append(graph.n_atoms)
            raise torch.OutOfMemoryError(f"{graph.n_atoms} atoms")
        self.passes.append(graph.n_atoms)
        return super().__call__(graph, stress=stress)


class Memory:
    """Memory of which every pass takes what it is told to."""

    def __init__(self, free: int, taken: int) -> None:
        self.free, self.taken, self.n_measured = free, taken, 0

    def free_bytes(self) -> int:
        return self.free

    def peak_bytes(self, call: Callable[[], Any]) -> tuple[Any, int]:
        self.n_measured += 1
        return call(), self.taken
