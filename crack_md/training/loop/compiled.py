"""The student of a training step as compiled code: outputs, and slopes of its weights.

Two packages of `crack_md.calculators.packages` serve. One gives energies, forces and
features on edges. The other takes the slopes of a loss with respect to these, evaluates
the network again and gives the slopes of its weights; forces being derivatives, it is
there that second ones stand written out. Weights and units of energy are inputs of
both, so that one pair serves every student of an architecture, whatever its data, for
batches of any size. It takes minutes to compile.
"""

import copy
import dataclasses
import hashlib
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.calculators.engine import (
    brief,
    largest_difference,
    quiet,
    rattled_crystals,
)
from crack_md.calculators.packaged import (
    FEWEST,
    SIZES,
    compile_code,
    kept_package,
    only_here,
)
from crack_md.calculators.packages import (
    Inputs,
    Package,
    conditions_here,
    inputs_of,
    open_package,
    path_for,
)
from crack_md.errors import CrackError
from crack_md.files import write_atomically
from crack_md.graph import (
    AtomGraph,
    atoms_per_structure,
    batch_graphs,
    sum_over_structures,
)
from crack_md.models.force_field import (
    EnergyUnits,
    ForceField,
    Prediction,
    forces_from_slopes,
)
from crack_md.models.harmonics import unroll
from crack_md.models.network import Edges
from crack_md.neighbors import build_graph

log = logging.getLogger(__name__)

AGREEMENT = 1e-3
"""Largest difference of slopes from those of the model, relative to the largest of the
same weight: float32 sums in another order."""
MOST_REPEATS = 6
"""Crystals in the example of a batch that code is made from."""
SMALL = 1e-3
"""Weights whose largest slope is below this part of the largest of all are compared to
that: they are differences of larger numbers."""

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


class CompiledStudent:
    """Evaluates a student in training by compiled code, which is made on first use.

    Its answers have their place in the graph of autograd, with weights as the only
    leaves: forces cannot be differentiated once more. Code is compared with the model
    on the first batch, in outputs and slopes of weights. Where compiling fails, or
    results differ, the model serves from then on, with a warning; so it does, without
    one, for batches of less than two atoms or edges, and outside training.

    Args:
        student: on the CPU, in float32 or float64. Its weights may change; nothing else
            may.
    """

    def __init__(self, student: ForceField) -> None:
        self.student = student
        self.code: StepCode | None = None
        """None until the first batch."""
        self._units = Units.of(student)
        self._reached: tuple[list[bool], ...] = ()
        self._given_up = False

    def __call__(self, graph: AtomGraph) -> Prediction:
        """Return energies, forces and features, differentiable in the weights."""
        network = self.student.network
        small = min(graph.mask.shape) < FEWEST
        learns = self.student.training and torch.is_grad_enabled()
        if self._given_up or small or not learns:
            return self.student(graph)
        with torch.no_grad():
            edges = network.edges(graph, compact=True)
        if len(edges.senders) < FEWEST:
            return self.student(graph)
        inputs = inputs_of(edges)
        if self.code is None and not self._start(graph, inputs):
            return self.student(graph)
        return self._evaluate(graph, inputs)

    def _evaluate(self, graph: AtomGraph, inputs: Inputs) -> Prediction:
        assert self.code is not None
        weights = self.student.network.parameters()
        atomic, forces, features = _Step.apply(  # type: ignore[no-untyped-call]
            self.code, self._reached, self._units, inputs, *weights
        )
        if self.student.scale.mean:
            share = self.student.scale.mean / atoms_per_structure(graph)
            atomic = atomic + share[graph.batch]
        energy = sum_over_structures(atomic, graph)
        return Prediction(energy, forces, None, features, atomic)

    def _start(self, graph: AtomGraph, inputs: Inputs) -> bool:
        try:
            if self.student.device.type != "cpu":
                raise CrackError("run.compile is for processors, and this is a GPU")
            self.code = step_code(self.student)
            self._check(graph, inputs)
        except CrackError as error:
            self.code, self._given_up = None, True
            warnings.warn(
                f"{error}; training goes on uncompiled, with the same results",
                stacklevel=2,
            )
        return not self._given_up

    def _check(self, graph: AtomGraph, inputs: Inputs) -> None:
        """Compare with the model, and find which output each weight reaches.

        Raises:
            CrackError: they differ by more than rounding.
        """
        weights = list(self.student.network.parameters())
        expected = self.student(graph)
        assert expected.node_energy is not None
        of_model = expected.node_energy, expected.forces, expected.node_features
        slopes = _slopes_of_each(of_model, weights)
        self._reached = tuple([one is not None for one in part] for part in slopes)
        found = self._evaluate(graph, inputs)
        assert found.node_energy is not None
        of_code = found.node_energy, found.forces, found.node_features
        outputs = zip(of_code, of_model, strict=True)
        _require_equal(outputs, at_most=largest_difference(self.student))
        for part, other in zip(_slopes_of_each(of_code, weights), slopes, strict=True):
            _require_equal(_comparable(part, other), at_most=AGREEMENT)


def _require_equal(pairs: Iterable[tuple[Tensor, Tensor]], *, at_most: float) -> None:
    off = max((_difference(one, other) for one, other in pairs), default=0.0)
    if not off < at_most:
        raise CrackError(
            f"the training step differs from itself by {off:.1e} when compiled"
        )


def _slopes_of_each(
    outputs: Outputs, weights: list[nn.Parameter]
) -> list[tuple[Tensor | None, ...]]:
    """Return slopes of weights for some loss of each output alone."""
    random = torch.Generator().manual_seed(0)
    return [
        torch.autograd.grad(
            output,
            weights,
            torch.randn(output.shape, generator=random).to(output),
            retain_graph=True,
            allow_unused=True,
        )
        for output in outputs
    ]


def _comparable(
    found: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...]
) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of slopes with one entry more: what is small beside the largest."""
    there = [
        (one, other)
        for one, other in zip(found, expected, strict=True)
        if one is not None and other is not None
    ]
    floor = SMALL * max((float(other.abs().max()) for _, other in there), default=0.0)
    return [
        (
            torch.cat([one.flatten(), one.new_tensor([floor])]),
            torch.cat([other.flatten(), other.new_tensor([floor])]),
        )
        for one, other in there
    ]


def _difference(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach(), expected.detach()
    scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((found - expected).abs().max() / scale)


class _Step(torch.autograd.Function):
    """Outputs of one package, with the other as the way back to the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        code: StepCode,
        reached: tuple[list[bool], ...],
        units: Units,
        inputs: Inputs,
        *weights: Tensor,
    ) -> Outputs:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*weights)
        ctx.code, ctx.reached, ctx.fixed = code, reached, (*units, *inputs)
        atomic, forces, features = code.outputs([*weights, *ctx.fixed])
        ctx.like = [one.detach() for one in (atomic, forces, features)]
        return atomic, forces, features

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [
            torch.zeros_like(like) if slope is None else slope.contiguous()
            for slope, like in zip(slopes, ctx.like, strict=True)
        ]
        weights = ctx.saved_tensors
        found = ctx.code.slopes([*weights, *ctx.fixed, *given])
        asked = [
            of_output
            for slope, of_output in zip(slopes, ctx.reached, strict=True)
            if slope is not None
        ]
        # none rather than zero, as autograd has it: weights without a slope stay
        kept = (
            slope if any(of_output[number] for of_output in asked) else None
            for number, slope in enumerate(found)
        )
        return None, None, None, None, *kept


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
        "model": f"training step ({name}) {digest.hexdigest()}",
        "step": _code_of_step(),
        **conditions_here(),
    }


def _code_of_step() -> str:
    """Return the hash of this file."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def step_code(student: ForceField) -> StepCode:
    """Return the packages of a training step, which are compiled where there are none.

    Raises:
        CrackError: the compiler fails, or the folder of packages cannot be written.
    """
    functions = StepFunctions(student)
    weights = tuple(one.detach() for one in student.network.parameters())
    fixed_inputs = (*weights, *Units.of(student))
    given = (*fixed_inputs, *_example(student, fixed_inputs))
    found = functions.outputs(*given)
    fixed: tuple[Mapping[int, Any], ...] = ({},) * functions.n_fixed
    free = ({0: SIZES[0][0]},) * len(found)
    return StepCode(
        _package(student, functions.outputs, given, (*fixed, *SIZES)),
        _package(student, functions.slopes, (*given, *found), (*fixed, *SIZES, *free)),
    )


def _example(student: ForceField, fixed: tuple[Tensor, ...]) -> Inputs:
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
    function: Any,
    given: tuple[Tensor, ...],
    sizes: tuple[Mapping[int, Any], ...],
) -> Package:
    conditions = conditions_of_step(student, function.__name__)
    with only_here(path := path_for(conditions)):
        kept = kept_package(path, conditions)
        if kept is not None:
            return kept
        log.info(
            "compiling the %s of a training step, which takes minutes and is kept",
            function.__name__,
        )
        begin = time.perf_counter()
        with quiet(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / path.name
            try:
                compile_code(function, given, sizes, conditions=conditions, path=file)
            except Exception as error:  # every part of the compiler has its own
                raise CrackError(
                    f"the training step cannot be compiled ({brief(error)})"
                ) from error
            package = open_package(file, conditions)
            write_atomically(path, file.read_bytes())
        log.info("compiled in %.0f s", time.perf_counter() - begin)
    return package
