"""Packages are made, kept and opened, and the engine that runs on them.

A package takes a minute or more. It is compared with its model on structures of several
sizes when it is made, and on the first structure of every process.
"""

import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from crack_md.calculators.engine import (
    Compile,
    CompiledEngine,
    EagerEngine,
    brief,
    keep_freed_memory,
    quiet,
    rattled,
    rattled_crystals,
)
from crack_md.calculators.packages import (
    PREFIX,
    Package,
    check_package,
    conditions_of,
    evaluate_package,
    inputs_of,
    open_package,
    package_path,
    path_for,
)
from crack_md.errors import CheckpointError, CrackError
from crack_md.files import write_atomically
from crack_md.graph import AtomGraph, batch_graphs
from crack_md.models.force_field import ForceField, Prediction
from crack_md.models.harmonics import unroll
from crack_md.models.network import Edges
from crack_md.neighbors import build_graph

log = logging.getLogger(__name__)

INLINED = 10
"""Operations that are carried out again in every loop rather than stored (30 in
PyTorch): radial functions are cheaper to store."""
FREE = torch.export.Dim.AUTO
SIZES = ({0: FREE},) * 5 + ({0: FREE, 1: FREE},)
"""Of the inputs of a package: any number of atoms, slots and edges."""
FEWEST = 2
"""Atoms, slots and edges that compiled code is made for; the model serves fewer."""


def package_of(model: ForceField) -> Package:
    """Return the package of a model, which is compiled if there is none yet.

    Args:
        model: in eval mode, on the CPU.

    Raises:
        CrackError: the compiler fails, its code differs from the model, or the folder
            of packages cannot be written.
    """

    @cache
    def graphs() -> list[AtomGraph]:
        return [
            build_graph(atoms, model.rule, dtype=model.dtype)
            for atoms in rattled_crystals(model)
        ]

    def write(path: Path) -> None:
        # sizes that are equal by chance would be taken for one and the same
        unlike = (g for g in graphs() if len(set(g.mask.shape)) == 2)
        _compile(model, next(unlike), path)

    def check(package: Package) -> None:
        for graph in (*graphs(), batch_graphs(graphs())):
            check_package(package, model, graph)

    return find_or_make_package(conditions_of(model), write, what="model", check=check)


def find_or_make_package(
    conditions: Mapping[str, str],
    write: Callable[[Path], None],
    *,
    what: str,
    check: Callable[[Package], None] | None = None,
) -> Package:
    """Return a package that is kept, or one that is made now and kept.

    Another process that makes the same one is waited for.

    Args:
        conditions: what it is made for.
        write: compiles it into a file; every part of the compiler has its own errors.
        what: is compiled, for messages.
        check: raises a CrackError where it must not be kept. It appears complete and
            checked, or not at all.

    Raises:
        CrackError: the compiler fails, the check does, or the folder of packages cannot
            be written.
    """
    path = path_for(conditions)
    with _locked(path):
        if path.exists():
            try:
                package = open_package(path, conditions)
                log.info("compiled code of the %s is taken from %s", what, path)
                return package
            except CheckpointError as error:
                log.warning("%s", error)
        begin = time.perf_counter()
        with quiet(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / path.name
            try:
                write(file)
            except Exception as error:
                raise CrackError(
                    f"the {what} cannot be compiled ({brief(error)})"
                ) from error
            package = open_package(file, conditions)
            if check is not None:
                check(package)
            write_atomically(path, file.read_bytes())
        log.info("compiled for any structure in %.1f s", time.perf_counter() - begin)
        return package


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise CrackError(
            f"no compiled code can be kept in '{path.parent}' ({brief(error)}); set "
            "XDG_CACHE_HOME to a folder that is writable"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _compile(model: ForceField, graph: AtomGraph, path: Path) -> None:
    model = copy.deepcopy(model).requires_grad_(requires_grad=False)
    unroll(model)

    def evaluate(
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        numbers: Tensor,
        filled: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, ...]:
        edges = Edges(
            vectors, vectors, senders, receivers, numbers, mask, filled, compact=False
        )
        return tuple(model.on_edges(edges))

    inputs = inputs_of(model.network.edges(graph, compact=True))
    compile_code(evaluate, inputs, SIZES, conditions=conditions_of(model), path=path)


def compile_code(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    sizes: tuple[Mapping[int, Any], ...],
    *,
    conditions: Mapping[str, str],
    path: Path,
) -> None:
    """Write a package of a function of tensors.

    Args:
        function: what it computes. It may differentiate: what is compiled has the
            derivatives written out.
        inputs: an example. Sizes that are equal by chance in it may be taken for one.
        sizes: which axes of each input may have another size, as `SIZES` of edges.
        conditions: what the package is made for.
        path: of the package.
    """
    # imported here: they take longer than all else at start-up
    from torch.fx.experimental.proxy_tensor import make_fx

    traced = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
        *inputs
    )
    program = torch.export.export(traced, inputs, dynamic_shapes=sizes)
    torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(path),
        inductor_configs={
            "aot_inductor.metadata": {
                PREFIX + name: one for name, one in conditions.items()
            },
            "realize_opcount_threshold": INLINED,
            "cpp.dynamic_threads": torch.get_num_threads() > 1,
        },
    )


class PackagedEngine:
    """Evaluates a model by its package, which is made where there is none yet.

    The first call of a process compares the package with the model on the structure
    that it is given, rattled. Where compiling fails, or results differ, the model
    serves from then on, with a warning; so it does, without one, for structures of
    less than two atoms or edges, and for those whose edges are worked on in parts.

    Args:
        model: in eval mode, on the CPU.
    """

    def __init__(self, model: ForceField) -> None:
        self.model = model
        self.start_up_s: dict[str, float] = {}
        """Seconds that the package took, until its first answer."""
        self._package: Package | None = None
        self._given_up = False
        keep_freed_memory()

    @property
    def n_compiled(self) -> int:
        """Return how many packages serve: one for all structures."""
        return len(self.start_up_s)

    def __call__(self, graph: AtomGraph, *, stress: bool = False) -> Prediction:
        """Return energies, forces and features of all structures."""
        network = self.model.network
        small = min(graph.mask.shape) < FEWEST
        if self._given_up or small or network.is_large(graph.mask):
            return self.model(graph, stress=stress)
        edges = network.edges(graph, compact=True)
        if len(edges.senders) >= FEWEST:
            package = self._package or self._start(graph)
            if package is not None:
                return evaluate_package(
                    package, self.model, graph, edges, stress=stress
                )
        return self.model(graph, stress=stress)

    def _start(self, graph: AtomGraph) -> Package | None:
        begin = time.perf_counter()
        try:
            package = package_of(self.model)
            check_package(package, self.model, rattled(graph))
        except CrackError as error:
            self._given_up = True
            warnings.warn(
                f"{error}; it goes on uncompiled, with the same results", stacklevel=2
            )
            return None
        self._package = package
        self.start_up_s["edges"] = time.perf_counter() - begin
        return package

    def __deepcopy__(self, memo: dict[int, object]) -> "PackagedEngine":
        """Return a new engine, which opens the package for itself."""
        return PackagedEngine(copy.deepcopy(self.model, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the model alone."""
        return PackagedEngine, (self.model,)


Engine = EagerEngine | CompiledEngine | PackagedEngine


def build_engine(model: ForceField, compile_: Compile = "auto") -> Engine:
    """Return the engine for a model.

    On a GPU code is compiled for few fixed shapes, on a CPU for edges of any structure.
    "auto" compiles on a GPU; on a CPU it takes a package that is there.
    """
    on_gpu = model.device.type == "cuda"
    if compile_ == "auto":
        compile_ = on_gpu or package_path(model).exists()
    if not compile_:
        return EagerEngine(model)
    return CompiledEngine(model) if on_gpu else PackagedEngine(model)
