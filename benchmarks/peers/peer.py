"""What adapters have in common: cases made of ASE structures, for ASE and NumPy alone.

This file, too, runs in the environments of peers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

MOVE_A = 0.01
"""How far atoms move between two calls: as in a step of molecular dynamics."""
SPRING_EV_PER_A2 = 3.0
TEMPERATURE_K = 300.0
TIMESTEP_FS = 1.0

Answer = tuple[list[float], list[list[list[float]]]]
"""Energies in eV and forces in eV/Å of several structures."""


class Peer:
    """One engine with its model; adapters fill in what it can do.

    Attributes:
        about: number of weights and versions of libraries, for the report.
    """

    about: dict[str, Any]

    def calculator(self) -> Any:
        """Return an ASE calculator as users of the engine would make it."""
        raise NotImplementedError

    def evaluate(self, structures: list[Atoms]) -> Answer:
        """Return energies and forces of structures in as few passes as possible."""
        raise NotImplementedError("has no interface for batches")

    def network(self, structures: list[Atoms]) -> Callable[[], Any]:
        """Return the pass through the model alone, its graph made beforehand."""
        raise NotImplementedError("the graph is made inside the model")

    def synchronize(self) -> None:
        """Wait for a GPU."""

    def reset_peak(self) -> None:
        """Count the memory of a GPU from now on."""

    def peak_bytes(self) -> int | None:
        """Return the most memory held on a GPU; None for that of the process."""
        return None

    def release(self) -> None:
        """Give cached memory of a GPU back."""

    def case(self, work: str, structures: list[dict[str, Any]]) -> Any:
        """Return the structures, ready for one kind of work."""
        return CASES[work](self, [structure(one) for one in structures])


class TorchPeer(Peer):
    """An engine that computes with PyTorch."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch = torch
        self.on_gpu = device.startswith("cuda")

    def synchronize(self) -> None:
        """Wait for the GPU."""
        if self.on_gpu:
            self.torch.cuda.synchronize()

    def reset_peak(self) -> None:
        """Count the memory of the GPU from now on."""
        if self.on_gpu:
            self.torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int | None:
        """Return the most memory held on the GPU; None for that of the process."""
        return self.torch.cuda.max_memory_allocated() if self.on_gpu else None

    def release(self) -> None:
        """Give cached memory of the GPU back."""
        if self.on_gpu:
            self.torch.cuda.empty_cache()


class Case:
    """Structures whose atoms move a little before every call."""

    def __init__(self, peer: Peer, structures: list[Atoms]) -> None:
        self.peer, self.structures = peer, structures
        self._start = [one.positions.copy() for one in structures]
        self._random = np.random.default_rng(0)

    def advance(self) -> None:
        """Move all atoms to new places near those they started from."""
        for one, start in zip(self.structures, self._start, strict=True):
            one.positions = start + self._random.normal(0.0, MOVE_A, start.shape)

    def predict(self) -> Answer:
        """Return energies and forces of the structures as they came."""
        for one, start in zip(self.structures, self._start, strict=True):
            one.positions = start
        return self.answer()

    def answer(self) -> Answer:
        """Return energies and forces of the structures as they are."""
        raise NotImplementedError

    def __call__(self) -> object:
        """Do what is timed."""
        return self.answer()


class Single(Case):
    """One structure through the ASE calculator: what an optimiser waits for."""

    def __init__(self, peer: Peer, structures: list[Atoms]) -> None:
        super().__init__(peer, structures)
        self.calculator = peer.calculator()

    def answer(self) -> Answer:
        """Return energy and forces of the one structure."""
        (atoms,) = self.structures
        self.calculator.calculate(atoms, ["energy", "forces"], all_changes)
        results = self.calculator.results
        return [float(results["energy"])], [np.asarray(results["forces"]).tolist()]

    def __call__(self) -> object:
        """Leave arrays as they are: lists are for the report alone."""
        (atoms,) = self.structures
        self.calculator.calculate(atoms, ["energy", "forces"], all_changes)
        return self.calculator.results


class Batch(Case):
    """Many structures at once."""

    def answer(self) -> Answer:
        """Return energies and forces of all structures."""
        energies, forces = self.peer.evaluate(self.structures)
        return list(map(float, energies)), [np.asarray(one).tolist() for one in forces]

    def __call__(self) -> object:
        """Leave arrays as they are: lists are for the report alone."""
        return self.peer.evaluate(self.structures)


class Network(Case):
    """The model alone, on a graph that is ready; atoms stay where they are."""

    def __init__(self, peer: Peer, structures: list[Atoms]) -> None:
        super().__init__(peer, structures)
        self._network = peer.network(structures)

    def advance(self) -> None:
        """Do nothing: the graph is made."""

    def __call__(self) -> object:
        """Run the model."""
        return self._network()


class Dynamics(Single):
    """Steps of NVE molecular dynamics with ASE: velocity Verlet, 1 fs, from 300 K.

    The model is evaluated in every step, but springs hold the atoms: forces of random
    weights would tear structures apart, and so every engine walks the same path.
    """

    def __init__(self, peer: Peer, structures: list[Atoms]) -> None:
        super().__init__(peer, structures)
        (atoms,) = self.structures
        atoms.calc = Springs(self.calculator, atoms.positions.copy())
        MaxwellBoltzmannDistribution(
            atoms, temperature_K=TEMPERATURE_K, rng=np.random.default_rng(0)
        )
        self._dynamics = VelocityVerlet(atoms, timestep=TIMESTEP_FS * units.fs)

    def advance(self) -> None:
        """Do nothing: a step moves the atoms."""

    def __call__(self) -> object:
        """Make one step."""
        return self._dynamics.step()


class Springs(Calculator):
    """Asks a calculator for energy and forces, and answers with those of springs."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, inner: Any, home: np.ndarray) -> None:
        super().__init__()
        self.inner, self.home = inner, home

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`; what the model says is computed and left aside."""
        super().calculate(atoms, properties, system_changes)
        self.inner.calculate(self.atoms, ["energy", "forces"], all_changes)
        away = self.atoms.positions - self.home
        self.results = {
            "energy": 0.5 * SPRING_EV_PER_A2 * float((away**2).sum()),
            "forces": -SPRING_EV_PER_A2 * away,
        }


CASES = {"single": Single, "batch": Batch, "network": Network, "md": Dynamics}


def structure(values: dict[str, Any]) -> Atoms:
    """Return the structure that came as plain lists."""
    return Atoms(
        values["numbers"], values["positions"], cell=values["cell"], pbc=values["pbc"]
    )
