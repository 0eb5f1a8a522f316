"""A model compiled ahead of time for a CPU: one package for structures of any size.

PyTorch's AOTInductor makes C++ of energies, forces and features on edges; the numbers
of atoms, edges and neighbors stay free. A package takes a minute or more, and is kept
in a folder of the user (`packages_folder`) under the name of all it was made for: the
model, the code of its network, PyTorch, the processor, one thread or several. It is
native code: open none that a stranger made.
"""

import hashlib
import json
import os
import platform
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import crack_md.models
from crack_md.calculators.engine import brief, difference_of, largest_difference
from crack_md.errors import CheckpointError, CrackError
from crack_md.graph import AtomGraph, sum_over_structures
from crack_md.models.checkpoint import checksum, content_of
from crack_md.models.force_field import ForceField, Prediction
from crack_md.models.network import Edges

FORMAT = 1
"""Of packages: raised where what they take or return changes."""

METADATA = ".wrapper_metadata.json"
"""How the file of a package ends that says what it was made for."""
PREFIX = "crack-md "
"""Of our entries in it."""
AGAIN = "whatever needs it compiles again, or: crack-md compile MODEL"

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Vectors, senders, receivers, atomic numbers, filled slots, mask: as in `Edges`."""
Package = Callable[[list[Tensor]], list[Tensor]]
"""From a list of inputs to energies of atoms, forces, features and slopes."""


def inputs_of(edges: Edges) -> Inputs:
    """Return what a package takes."""
    filled = edges.filled
    if filled is None:
        filled = torch.arange(edges.mask.numel())
    return (
        edges.vectors,
        edges.senders,
        edges.receivers,
        edges.numbers,
        filled,
        edges.mask,
    )


def conditions_of(model: ForceField) -> dict[str, str]:
    """Return all that a package of a model is made for, by what it is called."""
    return {"model": checksum(content_of(model)), **conditions_here()}


def conditions_here() -> dict[str, str]:
    """Return what any package is made for, whatever the model: code and machine."""
    return {
        "code": _code(),
        "PyTorch": str(torch.__version__),
        "processor": _processor(),
        "threads": "one" if torch.get_num_threads() == 1 else "several",
    }


@cache
def _code() -> str:
    """Return the hash of the code that networks are made of."""
    folder = Path(crack_md.models.__file__).parent
    digest = hashlib.sha256(f"format {FORMAT}".encode())
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _processor() -> str:
    """Return what generated code may use: the machine, and a hash of all its flags."""
    level = torch.backends.cpu.get_cpu_capability().lower()
    flags = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(errors="replace").splitlines()
        named = (line for line in lines if line.startswith(("flags", "Features")))
        flags = next(named, flags)
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:8]
    return f"{platform.machine()} {level} {digest}"


def packages_folder() -> Path:
    """Return ``crack-md/compiled`` below ``$XDG_CACHE_HOME``, or below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "crack-md" / "compiled"


def package_path(model: ForceField) -> Path:
    """Return where the package of a model belongs, on this machine."""
    return path_for(conditions_of(model))


def path_for(conditions: Mapping[str, str]) -> Path:
    """Return where a package belongs that is made for certain conditions."""
    rest = json.dumps(conditions, sort_keys=True).encode()
    name = f"{conditions['model'][:12]}-{hashlib.sha256(rest).hexdigest()[:12]}.pt2"
    return packages_folder() / name


def open_package(path: Path, conditions: Mapping[str, str]) -> Package:
    """Return the code of a package, ready to be called with a list of its inputs.

    Args:
        path: of the package.
        conditions: what it must be made for; `conditions_of` a model.

    Raises:
        CheckpointError: it is damaged, or was made for another model, processor or
            version of PyTorch.
    """
    found = _conditions_in(path)
    for name, value in conditions.items():
        if found.get(name) != value:
            raise CheckpointError(
                f"'{path}' is compiled for another {name}: {found.get(name)}, here it "
                f"is {value}; {AGAIN}"
            )
    try:
        return torch._inductor.aoti_load_package(str(path)).loader.boxed_run
    except Exception as error:
        raise CheckpointError(
            f"'{path}' cannot be loaded ({brief(error)}); remove it; {AGAIN}"
        ) from error


def _conditions_in(path: Path) -> dict[str, str]:
    """Return the conditions that a package was made for, without running it."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(METADATA))
            found = json.loads(archive.read(name))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"'{path}' is no package that crack-md compiled ({brief(error)}); {AGAIN}"
        ) from error
    return {
        name.removeprefix(PREFIX): str(value)
        for name, value in found.items()
        if name.startswith(PREFIX)
    }


def check_package(package: Package, model: ForceField, graph: AtomGraph) -> float:
    """Return the largest relative difference of a package from its model.

    Raises:
        CrackError: it is more than rounding.
    """
    edges = model.network.edges(graph, compact=True)
    found = evaluate_package(package, model, graph, edges, stress=False)
    difference = difference_of(found, model(graph))
    if not difference < largest_difference(model):
        raise CrackError(
            f"the model differs from itself by {difference:.1e} when compiled"
        )
    return difference


def evaluate_package(
    package: Package,
    model: ForceField,
    graph: AtomGraph,
    edges: Edges,
    *,
    stress: bool,
) -> Prediction:
    """Return what the model would, from a package of it and the edges of the graph."""
    atomic, forces, features, slopes = package(list(inputs_of(edges)))
    atomic = model.with_mean(atomic, graph)
    tensor = None
    if stress:
        tensor = _strain_slopes(edges, slopes, graph) / _volumes(graph.cell)
        tensor = ((tensor + tensor.mT) / 2).to(forces.dtype)
    energy = sum_over_structures(atomic, graph)
    return Prediction(energy, forces, tensor, features, atomic)


def _strain_slopes(
    edges: Edges, slopes: Float[Tensor, "edge 3"], graph: AtomGraph
) -> Float[Tensor, "structure 3 3"]:
    """Return ∂E/∂strain, the sum of vector ⊗ slope over the edges of a structure."""
    vectors, slopes = edges.vectors.double(), slopes.double()
    if graph.n_structures == 1:
        return (vectors.T @ slopes).unsqueeze(0)
    by_atom = edges.sums(vectors.unsqueeze(-1) * slopes.unsqueeze(-2))
    return sum_over_structures(by_atom, graph)


def _volumes(
    cells: Float[Tensor, "structure 3 3"],
) -> Float[Tensor, "structure 1 1"]:
    a, b, c = cells.unbind(dim=1)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1).abs()[:, None, None]
