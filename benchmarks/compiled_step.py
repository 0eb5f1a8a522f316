"""Time a training step compiled by AOTInductor: forward and gradient of the weights.

    python benchmarks/compiled_step.py data/orr_round_2.aselmdb

The forward call gives energies, forces and features; the second program takes the
slopes of a loss with respect to these, evaluates the model again and returns those of
all weights. Losses, optimizer and data are left out. Minutes, most of which the
compiler takes.

One batch is compiled for, and timed. Sizes are left free: the batches that follow are
compared, too. The trainer does not use this.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from crack_md.calculators.packaged import INLINED
from crack_md.calculators.packages import inputs_of
from crack_md.data.dataset import read_dataset
from crack_md.graph import AtomGraph
from crack_md.models.checkpoint import load_model
from crack_md.models.force_field import ForceField, forces_from_slopes
from crack_md.models.harmonics import unroll
from crack_md.models.network import Edges
from crack_md.training.data.frames import Frames

FRAMES = 16
CALLS = 20
N_INPUTS = 6
BATCHES = 4


class OfWeights(nn.Module):
    """The outputs of a network as a function of its weights, too."""

    def __init__(self, model: ForceField) -> None:
        super().__init__()
        self.model = model
        self.network = model.network
        self.names = [name for name, _ in model.network.named_parameters()]

    def forward(self, edges: Edges) -> Any:
        """Return what the network returns."""
        return self.network.output(edges)

    def predict(
        self, weights: list[Tensor], inputs: tuple[Tensor, ...]
    ) -> list[Tensor]:
        """Return energies of atoms, forces and features, differentiable in weights."""
        vectors, senders, receivers, numbers, filled, mask = inputs
        with torch.enable_grad():
            vectors = vectors.detach().requires_grad_()
            lengths = torch.linalg.vector_norm(vectors, dim=-1)
            edges = Edges(
                vectors,
                lengths,
                senders,
                receivers,
                numbers,
                mask,
                filled,
                compact=False,
            )
            named = {
                f"network.{name}": one
                for name, one in zip(self.names, weights, strict=True)
            }
            output = torch.func.functional_call(self, named, (edges,))
            atomic = self.model._atomic_energy(output, numbers)
            (slopes,) = torch.autograd.grad(atomic.sum(), vectors, create_graph=True)
            forces = forces_from_slopes(slopes, edges)
        return [atomic, forces, output.node_features]


def compiled(
    function: Callable[..., Any], given: tuple[Tensor, ...], n_fixed: int, folder: str
) -> Any:
    """Return the function as machine code; the first ``n_fixed`` keep their shapes."""
    begin = time.perf_counter()
    traced = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
        *given
    )
    free = torch.export.Dim.AUTO
    edges = ({0: free},) * (N_INPUTS - 1) + ({0: free, 1: free},)
    slopes = ({0: free},) * (len(given) - n_fixed - N_INPUTS)
    shapes = ({},) * n_fixed + edges + slopes
    program = torch.export.export(traced, given, dynamic_shapes=shapes)
    path = str(Path(folder) / f"{function.__name__}.pt2")
    torch._inductor.aoti_compile_and_package(
        program,
        package_path=path,
        inductor_configs={
            "realize_opcount_threshold": INLINED,
            "cpp.dynamic_threads": False,
        },
    )
    n_nodes, took = len(traced.graph.nodes), time.perf_counter() - begin
    print(f"{function.__name__}: {n_nodes:,} operations compiled in {took:.0f} s")
    return torch._inductor.aoti_load_package(path)


def milliseconds(call: Callable[[], Any]) -> float:
    """Return CPU time of one call."""
    call()
    begin = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - begin) / CALLS * 1e3


class Step:
    """Forward and gradient of the weights as functions of tensors alone."""

    def __init__(self, model: ForceField) -> None:
        plain = copy.deepcopy(model)
        unroll(plain)
        self.of_weights = OfWeights(plain)
        self.weights = tuple(one.detach() for one in plain.network.parameters())

    def inputs(self, graph: AtomGraph) -> tuple[Tensor, ...]:
        """Return what `forward` takes."""
        edges = self.of_weights.network.edges(graph, compact=True)
        return (*self.weights, *inputs_of(edges))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return energies of atoms, forces and features."""
        n_weights = len(self.weights)
        found = self.of_weights.predict(list(given[:n_weights]), given[n_weights:])
        return tuple(one.detach() for one in found)

    def gradient(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return slopes of the weights; slopes of what `forward` returns come last."""
        n_weights = len(self.weights)
        own = [one.detach().requires_grad_() for one in given[:n_weights]]
        inputs = given[n_weights : n_weights + N_INPUTS]
        found = self.of_weights.predict(own, inputs)
        slopes = torch.autograd.grad(
            found, own, given[n_weights + N_INPUTS :], allow_unused=True
        )
        return tuple(
            torch.zeros_like(one) if slope is None else slope
            for one, slope in zip(own, slopes, strict=True)
        )


def eager_step(model: ForceField, graph: AtomGraph) -> Any:
    """Return the gradient of some loss as the trainer takes it."""
    found = model(graph)
    loss = found.energy.sum() * 0.01 + found.forces.square().sum()
    loss = loss + found.node_features.square().sum()
    return torch.autograd.grad(
        loss, list(model.network.parameters()), allow_unused=True
    )


def difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Return the largest one, each relative to the largest slope of its weight."""
    return max(
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-9))
        for one, other in zip(found, expected, strict=True)
    )


def main() -> None:
    """Compile, compare and time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, help="labelled frames")
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model).train()
    structures = read_dataset(options.data).structures[: BATCHES * FRAMES]
    frames = Frames(structures, model.rule)
    graphs = [
        frames.batch(torch.arange(FRAMES) + FRAMES * number).graph
        for number in range(BATCHES)
    ]
    step = Step(model)
    batches = [step.inputs(graph) for graph in graphs]
    slopes = [tuple(map(torch.randn_like, step.forward(*batch))) for batch in batches]
    n_weights = len(step.weights)
    with tempfile.TemporaryDirectory() as folder:
        forward = compiled(step.forward, batches[0], n_weights, folder)
        both = (*batches[0], *slopes[0])
        gradient = compiled(step.gradient, both, n_weights, folder)
        before = milliseconds(lambda: eager_step(model, graphs[0]))
        parts = [
            milliseconds(lambda: forward(*batches[0])),
            milliseconds(lambda: gradient(*both)),
        ]
        print(
            f"{FRAMES} frames, {graphs[0].n_atoms} atoms: {before:.1f} ms uncompiled, "
            f"{parts[0]:.1f} + {parts[1]:.1f} ms compiled: "
            f"{before / sum(parts):.2f} times"
        )
        for batch, slope in zip(batches, slopes, strict=True):
            n_edges = len(batch[n_weights])
            off = difference(gradient(*batch, *slope), step.gradient(*batch, *slope))
            print(f"{n_edges} edges: gradients differ by {off:.1e}")


if __name__ == "__main__":
    main()
