"""Is this installation whole: versions, device, extras, models and what they compute.

Every check stands alone: what fails is a finding with a fault, and the others go on.
"""

import importlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import ase
import numpy as np
from ase.build import add_adsorbate, fcc111
from packaging.requirements import Requirement

from crack_md.errors import CrackError

PACKAGE = "crack-md"
NOT_FOR_USERS = frozenset({"all", "dev", "docs", "peers"})
"""Extras for work on the package itself."""
INSTRUCTIONS = ("amx_bf16", "asimd", "avx2", "avx512_bf16", "avx512f", "bf16")
"""What PyTorch's kernels make use of, as Linux names it on x86 and on ARM."""
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CRACK_MD_REFERENCES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "PYTHONPATH",
)
"""Of the environment: what makes runs differ, or slow."""


class Expected(NamedTuple):
    """What a packaged model gives for `oxygen_on_platinum`, in float64 on a CPU."""

    energy_eV: float
    largest_force_eV_per_A: float


EXPECTED = {
    "noble-2026-11": Expected(-73.014133, 2.136377),
    "orr-2026-11": Expected(-73.158543, 1.864348),
    "orr-2026-11b": Expected(-73.129132, 1.804349),
}
"""Of each packaged model, whose weights never change."""
TOLERANCE = 2e-4
"""In eV and eV/Å; float32 on CPUs and GPUs differs by 1e-6 to 3e-5."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    value: str
    fault: str = ""
    """What is broken and what to do; empty where all is well."""


def check_installation() -> tuple[Finding, ...]:
    """Return what there is to know about this installation, faults included.

    Nothing is downloaded or written. It takes two seconds beside the import of PyTorch.
    """
    return tuple(
        finding
        for check in (_software, _devices, _extras, _models)
        for finding in _guarded(check)
    )


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check, the last of them the error that ended it."""
    try:
        yield from check()
    except Exception as error:  # broken libraries raise all kinds
        name = check.__name__.strip("_")
        yield Finding(name, "not checked", f"{type(error).__name__}: {error}")


def _software() -> Iterator[Finding]:
    system = f"{platform.system()} {platform.machine()}"
    place = Path(__file__).parents[1]
    yield Finding("python", f"{platform.python_version()}, {system}")
    yield Finding(PACKAGE, f"{metadata.version(PACKAGE)} in {place}")
    core = [one for one in _requirements() if one.marker is None]
    for requirement in core:
        version = _installed(requirement)
        fault = _unmet(requirement, version)
        if not fault:
            importlib.import_module(MODULES.get(requirement.name, requirement.name))
        yield Finding(requirement.name, version or "missing", fault)
    found = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    yield Finding("environment", " ".join(found) or "nothing set that matters")


MODULES = {
    "ase-db-backends": "ase_db_backends",
    "lightning-fabric": "lightning_fabric",
    "pyyaml": "yaml",
}
"""Names to import where they are not those of the distribution."""


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in metadata.requires(PACKAGE) or ()]


def _installed(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def _unmet(requirement: Requirement, version: str | None) -> str:
    """Return what is wrong with a requirement; nothing where it is met."""
    if version is None:
        return f"missing; install it with: pip install '{requirement.name}'"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    wanted = f"{requirement.name}{requirement.specifier}"
    return f"{version} does not fit; install it with: pip install '{wanted}'"


def _devices() -> Iterator[Finding]:
    import torch

    flags = _cpu_flags()
    yield Finding(
        "cpu",
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, PyTorch uses "
        f"{torch.backends.cpu.get_cpu_capability()}; the processor has "
        + (" ".join(one for one in INSTRUCTIONS if one in flags) or "unknown sets"),
    )
    for index in range(torch.cuda.device_count()):
        of = torch.cuda.get_device_properties(index)
        yield Finding(
            f"gpu {index}",
            f"{of.name}, {of.total_memory / 2**30:.0f} GiB, compute capability "
            f"{of.major}.{of.minor}, CUDA {torch.version.cuda}",
        )
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") is not None
        hint = " (a driver is there: install a CUDA build of torch)" if driver else ""
        yield Finding("gpu", f"none that PyTorch can use{hint}")


def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return set()
    lines = info.read_text(errors="replace").splitlines()
    return {
        word
        for line in lines
        if line.startswith(("flags", "Features"))
        for word in line.partition(":")[2].split()
    }


def _extras() -> Iterator[Finding]:
    """Yield what is installed of each extra, and how to get the others."""
    requirements = [one for one in _requirements() if one.marker is not None]
    for extra in metadata.metadata(PACKAGE).get_all("Provides-Extra") or ():
        parts = [
            one
            for one in requirements
            if one.marker and one.marker.evaluate({"extra": extra})
        ]
        if extra in NOT_FOR_USERS or not parts:
            continue
        faults = [_unmet(one, _installed(one)) for one in parts]
        if any(faults):
            text = f"not installed: pip install '{PACKAGE}[{extra}]'"
        else:
            text = ", ".join(f"{one.name} {_installed(one)}" for one in parts)
        yield Finding(f"extra {extra}", text)


def oxygen_on_platinum() -> ase.Atoms:
    """Return O on a rattled p(2 × 2) slab of Pt(111), three layers, 13 atoms."""
    slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=7.0, periodic=True)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.rattle(0.05, seed=1)
    return slab


def _models() -> Iterator[Finding]:
    """Yield what every packaged model computes on every kind of device."""
    import torch

    from crack_md.models.registry import DEFAULT, aliases, model_names

    table = aliases()
    if DEFAULT not in table:
        yield Finding("models", "none", "no packaged student; install crack-md again")
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for name in sorted({*model_names()} - {*table}):
        alias = [key for key, dated in table.items() if dated == name]
        shown = f"model {name}" + (f" ({', '.join(alias)})" if alias else "")
        for device in devices:
            yield _computed(name, f"{shown}, {device}", device)


def _computed(name: str, shown: str, device: str) -> Finding:
    from crack_md.calculators import CrackCalculator

    begin = time.perf_counter()
    atoms = oxygen_on_platinum()
    try:
        atoms.calc = CrackCalculator(name, device=device, compile=False)
        energy = float(atoms.get_potential_energy())
        force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    except (CrackError, RuntimeError) as error:
        return Finding(shown, "fails", str(error))
    took = f"{time.perf_counter() - begin:.1f} s"
    value = f"{energy:.4f} eV, {force:.4f} eV/Å in {took}"
    expected = EXPECTED.get(name)
    if expected is None:
        return Finding(shown, f"{value}; nothing to compare it with")
    if max(abs(np.subtract(expected, (energy, force)))) <= TOLERANCE:
        return Finding(shown, f"{value}, as expected")
    return Finding(
        shown,
        value,
        f"expected {expected.energy_eV:.4f} eV and "
        f"{expected.largest_force_eV_per_A:.4f} eV/Å: PyTorch computes wrongly "
        "here, or the model file was changed; install both again",
    )
