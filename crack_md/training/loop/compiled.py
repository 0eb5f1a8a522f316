"""The student of a training step as compiled code, with a way back to its weights."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crack_md.calculators.engine import largest_difference
from crack_md.calculators.packaged import FEWEST
from crack_md.calculators.packages import Inputs, inputs_of
from crack_md.errors import CrackError
from crack_md.graph import AtomGraph, sum_over_structures
from crack_md.models.force_field import ForceField, Prediction
from crack_md.training.loop.step_code import Outputs, StepCode, Units, build_step_code

AGREEMENT = 1e-3
"""Largest difference of slopes from those of the model, relative to the largest of the
same weight: float32 sums in another order."""
SMALL = 1e-3
"""Weights whose largest slope is below this part of the largest of all are compared to
that: they are differences of larger numbers."""


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
        atomic = self.student.with_mean(atomic, graph)
        energy = sum_over_structures(atomic, graph)
        return Prediction(energy, forces, None, features, atomic)

    def _start(self, graph: AtomGraph, inputs: Inputs) -> bool:
        try:
            if self.student.device.type != "cpu":
                raise CrackError("run.compile is for processors, and this is a GPU")
            self.code = build_step_code(self.student)
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
        outputs = list(zip(of_code, of_model, strict=True))
        _require_equal(outputs, at_most=largest_difference(self.student))
        for part, other in zip(_slopes_of_each(of_code, weights), slopes, strict=True):
            pairs = [
                (one, two)
                for one, two in zip(part, other, strict=True)
                if one is not None and two is not None
            ]
            largest = max((float(two.abs().max()) for _, two in pairs), default=0.0)
            _require_equal(pairs, at_most=AGREEMENT, floor=SMALL * largest)


def _require_equal(
    pairs: Sequence[tuple[Tensor, Tensor]], *, at_most: float, floor: float = 0.0
) -> None:
    """Refuse differences relative to the largest number of each, or to the floor."""
    for found, expected in pairs:
        scale = max(float(expected.detach().abs().max()), floor)
        off = float((found - expected).detach().abs().max())
        if not off <= at_most * scale:
            raise CrackError(
                f"the training step differs from itself by {off / (scale or 1):.1e} "
                "when compiled"
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
