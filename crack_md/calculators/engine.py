"""How a model is evaluated: eager, or compiled for a few fixed shapes.

PyTorch keeps what it has compiled on disk: a second process starts sooner.
"""

import copy
import ctypes
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import ase
import numpy as np
import torch

from crack_md.graph import AtomGraph, padded_graph
from crack_md.models.force_field import ForceField, Prediction
from crack_md.neighbors import StrictNeighbors

AGREEMENT = {torch.float32: 2e-4, torch.float64: 1e-9}
ROUNDED_AGREEMENT = {"tf32": 2e-3, "bfloat16": 2e-2}
"""Largest relative difference of compiled and eager results where factors of products
are rounded: sums in another order give other values to round."""


def largest_difference(model: ForceField) -> float:
    """Return what `difference_of` two evaluations of a model may be at most."""
    return ROUNDED_AGREEMENT.get(model.products, AGREEMENT[model.dtype])


def difference_of(one: Prediction, other: Prediction) -> float:
    """Return the largest difference of forces and of energies of atoms, relative."""
    assert one.node_energy is not None
    assert other.node_energy is not None
    forces = (one.forces - other.forces).abs().max() / other.forces.abs().max()
    spread = other.node_energy.abs().max()
    energies = (one.node_energy - other.node_energy).abs().max() / spread
    return float(torch.maximum(forces.double(), energies.double()))


Compile = Literal["auto"] | bool

log = logging.getLogger(__name__)

ATOM_STEP, WIDTH_STEP = 8, 8
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of malloc.h."""
LARGEST_KEPT = (32 << 20) - (64 << 10)
"""Bytes; just below the largest block that changes what glibc keeps."""
HEADROOM = 1 / 8
"""Buckets are about this far apart: so much work is wasted at most."""
EDGE_STEP = 64
DENSE = 0.9
"""Filled parts of a table beyond this leave too little out to be worth it."""
BATCH_WASTE = 2
"""A batch takes a known shape up to so many times its size: compiling takes longer."""
MAX_SHAPES = 64
"""Beyond these PyTorch refuses to compile; its own limit is 8."""
SPACING = 0.55
"""Of atoms in crystals to compare on, in cutoffs: some 40 neighbors."""
RATTLE_A = 0.01
"""How far atoms are moved for the check: ideal structures have no forces to compare."""


class Shape(NamedTuple):
    """What compiled code is made for."""

    n_atoms: int
    width: int
    stress: bool
    n_structures: int = 1
    """Room for so many: 1, or in a batch as many as there are atoms."""
    n_edges: int | None = None
    """Room for so many; None where the whole table is worked on."""


class EagerEngine:
    """Evaluates a model as it is."""

    def __init__(self, model: ForceField) -> None:
        self.model = model
        self.start_up_s: dict[Shape, float] = {}
        """Empty: nothing is compiled."""
        if model.device.type == "cpu":
            keep_freed_memory()

    def __call__(self, graph: AtomGraph, *, stress: bool = False) -> Prediction:
        """Return energies, forces and features of all structures."""
        return self.model(graph, stress=stress)


class CompiledEngine:
    """Evaluates a compiled copy of a model, its input padded to one of few shapes.

    Graphs of one bucket share compiled code, so molecular dynamics never compiles
    twice: atoms are padded to the next bucket, tables of neighbors to the widest and
    edges to the most seen of that bucket, with some headroom. Batches, whose sizes vary
    more, also take a shape up to twice their size if there is one. The first call of a
    shape is compared with the eager model on rattled positions; where they disagree, or
    compilation fails, the eager model serves from then on, with a warning.

    Args:
        model: In eval mode, on its device.
        backend: Of torch.compile, by its name or as a function.
    """

    def __init__(
        self, model: ForceField, *, backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        self.model = model
        self.backend = backend
        self.start_up_s: dict[Shape, float] = {}
        """Seconds of the first call of every shape."""
        self._widths: dict[int, int] = {}
        self._edges: dict[tuple[int, int], int] = {}
        """Room for edges by atoms and width."""
        self._given_up = False
        self._compiled = copy.deepcopy(model)
        graphs = model.device.type == "cuda" and backend == "inductor"
        self._compiled.network.compile(
            backend=backend,
            dynamic=False,
            fullgraph=True,
            mode="reduce-overhead" if graphs else None,
        )

    @property
    def n_compiled(self) -> int:
        """Return how many shapes have been compiled."""
        return len(self.start_up_s)

    def __call__(self, graph: AtomGraph, *, stress: bool = False) -> Prediction:
        """Return energies, forces and features of all structures."""
        shape = self.shape_of(graph, stress=stress)
        if not self._given_up and shape not in self.start_up_s:
            self._start(graph, shape)
        if self._given_up:
            return self.model(graph, stress=stress)
        return self._evaluate(graph, shape)

    def shape_of(self, graph: AtomGraph, *, stress: bool = False) -> Shape:
        """Return the shape that a graph takes, which may be a new one."""
        n_atoms, width = graph.mask.shape
        if graph.n_structures > 1:
            return self._shape_of_batch(graph, stress=stress)
        size = bucket_of(n_atoms)
        width = self._known_width(size, width)
        return Shape(size, width, stress, n_edges=self._known_edges(size, width, graph))

    def _shape_of_batch(self, graph: AtomGraph, *, stress: bool) -> Shape:
        (n_atoms, width), most = graph.mask.shape, graph.most_edges
        known = [
            shape
            for shape in self.start_up_s
            if shape.n_structures > 1
            and shape.stress == stress
            and shape.width >= width
            and n_atoms <= shape.n_atoms <= BATCH_WASTE * n_atoms
            and (shape.n_edges is None or (most or math.inf) <= shape.n_edges)
        ]
        if known:
            return min(known, key=lambda shape: shape[:2])
        size = bucket_of(math.ceil(n_atoms * (1 + HEADROOM)))
        width = self._known_width(size, width)
        room = self._known_edges(size, width, graph)
        return Shape(size, width, stress, n_structures=size, n_edges=room)

    def _known_edges(self, n_atoms: int, width: int, graph: AtomGraph) -> int | None:
        """Return the room for edges of a bucket; None to work on the whole table."""
        most = graph.most_edges
        if most is None:
            return None
        known = self._edges.get((n_atoms, width), 0)
        if most > known:
            known = _rounded(most * (1 + HEADROOM), EDGE_STEP)
            self._edges[n_atoms, width] = known
        return known if known < DENSE * n_atoms * width else None

    def _known_width(self, n_atoms: int, width: int) -> int:
        known = self._widths.get(n_atoms, 0)
        if width > known:
            strict = isinstance(self.model.rule, StrictNeighbors)
            known = width if strict else _rounded(width * (1 + HEADROOM), WIDTH_STEP)
            self._widths[n_atoms] = known
        return known

    def _evaluate(self, graph: AtomGraph, shape: Shape) -> Prediction:
        padded = padded_graph(graph, shape.n_atoms, shape.width, shape.n_structures)
        padded = padded._replace(most_edges=shape.n_edges)
        if graph.mask.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        answer = self._compiled(padded, stress=shape.stress)
        return _without_padding(answer, graph)

    def _start(self, graph: AtomGraph, shape: Shape) -> None:
        """Compile for a shape, and check the result."""
        begin = time.perf_counter()
        graph = rattled(graph)
        try:
            with quiet(), torch._dynamo.config.patch(recompile_limit=MAX_SHAPES):
                answer = self._evaluate(graph, shape)
        except torch.OutOfMemoryError:
            raise  # a smaller batch may do
        except Exception as error:  # every part of the compiler has its own
            self._give_up(f"cannot be compiled ({brief(error)})")
            return
        difference = difference_of(answer, self.model(graph))
        if not difference < largest_difference(self.model):
            self._give_up(f"differs from itself by {difference:.1e} when compiled")
            return
        self.start_up_s[shape] = time.perf_counter() - begin
        log.info(
            "compiled for %d atoms and %d neighbors%s in %.1f s",
            shape.n_atoms,
            shape.width,
            "" if shape.n_edges is None else f", {shape.n_edges} edges in all,",
            self.start_up_s[shape],
        )

    def _give_up(self, reason: str) -> None:
        self._given_up = True
        warnings.warn(
            f"the model {reason}; it goes on uncompiled, with the same results",
            stacklevel=2,
        )

    def __deepcopy__(self, memo: dict[int, object]) -> "CompiledEngine":
        """Return a new engine: compiled code is not copied but made again."""
        return CompiledEngine(copy.deepcopy(self.model, memo), backend=self.backend)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the model alone."""
        return partial(CompiledEngine, backend=self.backend), (self.model,)


def keep_freed_memory() -> None:
    """Let the C library of Linux keep what is freed (mallopt(3)).

    Before, each call of a model gives some hundred MB back and gets them again page by
    page, up to a third of its time. Old C libraries refuse such a threshold; they keep
    blocks up to twice the largest that was ever freed.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(M_MMAP_THRESHOLD, 1 << 30):
        torch.empty(LARGEST_KEPT, dtype=torch.uint8)
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def bucket_of(n_atoms: int) -> int:
    """Return the smallest bucket that holds so many atoms.

    Sizes are multiples of 8, about 12 % apart: a structure that gains or loses an atom
    mostly keeps its bucket.
    """
    size = ATOM_STEP
    while size < n_atoms:
        size = max(size + ATOM_STEP, _rounded(size * (1 + HEADROOM), ATOM_STEP))
    return size


def _rounded(value: float, step: int) -> int:
    return math.ceil(value / step) * step


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the compiler's own warnings from users: what matters is checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_padding(answer: Prediction, graph: AtomGraph) -> Prediction:
    # copies: the next call may write to the same memory
    n_atoms, n_structures = graph.n_atoms, graph.n_structures
    atomic = answer.node_energy
    return Prediction(
        energy=answer.energy[:n_structures].clone(),
        forces=answer.forces[:n_atoms].clone(),
        stress=None if answer.stress is None else answer.stress[:n_structures].clone(),
        node_features=answer.node_features[:n_atoms].clone(),
        node_energy=None if atomic is None else atomic[:n_atoms].clone(),
    )


def rattled(graph: AtomGraph) -> AtomGraph:
    """Return a graph whose atoms have moved a little, always in the same way."""
    random = torch.Generator().manual_seed(0)
    moved = torch.randn(graph.positions.shape, generator=random)
    return graph._replace(
        positions=graph.positions + RATTLE_A * moved.to(graph.positions)
    )


def rattled_crystals(model: ForceField) -> list[ase.Atoms]:
    """Return small crystals of a model's elements, to compare compiled code on.

    Of two sizes, in skew cells, periodic in two and in three directions: rows of their
    neighbor tables differ.
    """
    elements = model.metadata.elements
    spacing = SPACING * model.network.config.cutoff
    crystals = []
    for repeat, periodic in (((2, 3, 5), (True, True, False)), ((3, 2, 2), True)):
        cell = spacing * np.array([[1, 0, 0], [0.1, 1, 0], [0.05, -0.1, 1]])
        atoms = ase.Atoms("X", cell=cell, pbc=True) * repeat
        atoms.numbers = np.resize(elements, len(atoms))
        atoms.pbc = periodic
        atoms.rattle(0.05 * spacing, seed=len(atoms))
        crystals.append(atoms)
    return crystals


def brief(error: Exception) -> str:
    """Return the kind and the first line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
