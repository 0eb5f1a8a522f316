"""What is compiled for training steps: functions of weights, units and edges.

Two packages of `crack_md.calculators.packages` serve. One gives energies, forces and
features on edges. The other takes the slopes of a loss with respect to these, evaluates
the network again and gives the slopes of its weights; forces being derivatives, it is
there that second ones stand written out. Weights and energy units are inputs of
both, so that one pair serves every student of an architecture, whatever its data, for
batches of any size. It takes minutes to compile.
"""

import copy
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.calculators.engine import rattled_crystals
from crack_md.calculators.packaged import (
    FREE,
    SIZES,
    compile_code,
    find_or_make_package,
)
from crack_md.calculators.packages import Inputs, Package, conditions_here, inputs_of
from crack_md.errors import CrackError
from crack_md.graph import batch_graphs
from crack_md.models.force_field import EnergyUnits, ForceField, forces_from_slopes
from crack_md.models.harmonics import unroll
from crack_md.models.network import Edges
from crack_md.neighbors import build_graph

log = logging.getLogger(__name__)

MOST_REPEATS = 6
"""Crystals in the example of a batch that code is made from."""

Outputs = tuple[Tensor, Tensor, Tensor]
"""Energies of atoms without `EnergyScale.mean`, forces, features."""


class Units(NamedTuple):
    """The scale of a model as tensors, so that code does not depend on the data."""

    std: Float[Tensor, ""]
    force_std: Float[Tensor, ""]
    references: Float[Tensor, " element"]
    isolated_difference: Float[Tensor, " element"]

    @classmethod
    def of(cls, model: ForceField) -> "Units":
        """Return those of a model."""
        units = model.energy_units
        return cls(
            torch.tensor(units.std, dtype=torch.float64),
            torch.tensor(model.scale.force_std, dtype=model.dtype),
            units.references,
            units.isolated_difference,
        )


class _ByEdges(nn.Module):
    """A network whose call takes edges, as `torch.func.functional_call` needs it."""

    def __init__(self, model: ForceField) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.network)
        unroll(self.network)

    def forward(self, edges: Edges) -> Any:
        return self.network.output(edges)


class StepFunctions:
    """What is compiled: functions of weights, units and edges, all of them tensors.

    Args:
        model: it is copied; its weights are inputs and not part of the functions.
    """

    def __init__(self, model: ForceField) -> None:
        self.by_edges = _ByEdges(model)
        self.names = [name for name, _ in self.by_edges.named_parameters()]
        self.average_atoms = model.network.config.average_atoms
        self.n_fixed = len(self.names) + len(Units._fields)
        """Inputs before those of edges: their sizes stay."""

    def outputs(self, *given: Tensor) -> Outputs:
        """Return energies, forces and features; weights, units and edges come in."""
        return tuple(one.detach() for one in self._evaluate(given))  # type: ignore[return-value]

    def slopes(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the slopes of all weights; those of the three outputs come in last."""
        n_weights = len(self.names)
        weights = tuple(one.detach().requires_grad_() for one in given[:n_weights])
        outputs = self._evaluate((*weights, *given[n_weights:-3]))
        found = torch.autograd.grad(outputs, weights, given[-3:], allow_unused=True)
        return tuple(
            torch.zeros_like(weight) if slope is None else slope
            for weight, slope in zip(weights, found, strict=True)
        )

    def _evaluate(self, given: tuple[Tensor, ...]) -> Outputs:
        n_weights = len(self.names)
        named = dict(zip(self.names, given[:n_weights], strict=True))
        units = Units(*given[n_weights : self.n_fixed])
        vectors, senders, receivers, numbers, filled, mask = given[self.n_fixed :]
        scale = EnergyUnits(
            self.average_atoms,
            units.std,
            units.references,
            units.isolated_difference,
        )
        with torch.enable_grad():
            vectors = vectors.detach().requires_grad_()
            edges = Edges(
                vectors,
                torch.linalg.vector_norm(vectors, dim=-1),
                senders,
                receivers,
                numbers,
                mask,
                filled,
                compact=False,
            )
            output = torch.func.functional_call(self.by_edges, named, (edges,))
            atomic = scale.atomic_energies(output, numbers)
            if output.forces is not None:
                forces = output.forces * units.force_std
            else:
                (slopes,) = torch.autograd.grad(
                    atomic.sum(), vectors, create_graph=True
                )
                forces = forces_from_slopes(slopes, edges)
        return atomic, forces, output.node_features


class StepCode(NamedTuple):
    """The two packages, for any weights."""

    outputs: Package
    slopes: Package


def conditions_of_step(student: ForceField, name: str) -> dict[str, str]:
    """Return all that a package of a training step is made for.

    Args:
        student: its weights and units do not count.
        name: ``outputs`` or ``slopes``.
    """
    network = student.network
    digest = hashlib.sha256()
    told = dataclasses.asdict(network.config) | {
        "dtype": str(student.dtype),
        "tells_isolation": network.tells_isolation,
    }
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    for key, values in network.named_buffers():
        digest.update(key.encode() + values.cpu().numpy().tobytes())
    return {
        "model": digest.hexdigest(),
        "program": f"{name} of a training step",
        "step": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16],
        **conditions_here(),
    }


def build_step_code(student: ForceField) -> StepCode:
    """Return the packages of a training step, which are compiled where there are none.

    Raises:
        CrackError: the compiler fails, or the folder of packages cannot be written.
    """
    functions = StepFunctions(student)
    weights = tuple(one.detach() for one in student.network.parameters())
    fixed_inputs = (*weights, *Units.of(student))
    given = (*fixed_inputs, *build_example(student, fixed_inputs))
    found = functions.outputs(*given)
    fixed: tuple[Mapping[int, Any], ...] = ({},) * functions.n_fixed
    free = ({0: FREE},) * len(found)
    return StepCode(
        _package(student, functions.outputs, given, (*fixed, *SIZES)),
        _package(student, functions.slopes, (*given, *found), (*fixed, *SIZES, *free)),
    )


def build_example(student: ForceField, fixed: tuple[Tensor, ...]) -> Inputs:
    """Return edges of which no size is also another's, or one of a weight.

    What is traced takes sizes that are equal for one and the same.
    """
    crystals = [
        build_graph(atoms, student.rule, dtype=student.dtype)
        for atoms in rattled_crystals(student)
    ]
    taken = {size for one in fixed for size in one.shape}
    for repeats in range(1, MOST_REPEATS):
        for first in range(repeats + 1):
            one, other = crystals
            graph = batch_graphs([one] * first + [other] * (repeats - first))
            inputs = inputs_of(student.network.edges(graph, compact=True))
            sizes = [len(inputs[0]), *graph.mask.shape]
            if len({*sizes} - taken) == len(sizes):
                return inputs
    raise CrackError("the training step cannot be compiled (no example fits)")


def _package(
    student: ForceField,
    function: Callable[..., tuple[Tensor, ...]],
    given: tuple[Tensor, ...],
    sizes: tuple[Mapping[int, Any], ...],
) -> Package:
    conditions = conditions_of_step(student, function.__name__)

    def write(path: Path) -> None:
        log.info(
            "compiling the %s of a training step, which takes minutes and is kept",
            function.__name__,
        )
        compile_code(function, given, sizes, conditions=conditions, path=path)

    return find_or_make_package(conditions, write, what="training step")
