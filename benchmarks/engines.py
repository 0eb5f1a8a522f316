"""The engines that are compared: our models, and peers in environments of their own."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.dft_sets import references
from benchmarks.models import load_network, random_22m, with_direct_forces
from benchmarks.peers.process import WorkerProcess
from crack_md.models.checkpoint import save_model

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".peers"
OURS = "crack-md"
INSTALL = "make peers"
COMPILED = "compiled"
"""Folder beside the logs for what engines compile."""
REFERENCE = "22M"
"""Times of the others are given as multiples of this one's."""


@dataclass(frozen=True)
class Engine:
    """One model in one environment.

    Attributes:
        name: What options call it.
        title: What tables call it.
        environment: Name of a folder in `PEERS`, or `OURS`.
        adapter: File in peers/adapters.
        options: For the adapter, "device" left out.
        function: Engines of the same function have to agree, within their precision.
        dtype: Of its large products, for the rate of the machine.
        missing: Why it cannot run; empty if it can.
    """

    name: str
    title: str
    environment: str
    adapter: str
    options: Mapping[str, Any] = field(default_factory=dict)
    function: str = ""
    dtype: str = "float32"
    missing: str = ""

    def start(self, *, device: str, threads: int, logs: Path) -> WorkerProcess:
        """Start a worker; it knows nothing of its model yet."""
        command = [
            str(self.python),
            str(HERE / "peers" / "worker.py"),
            str(HERE / "peers" / "adapters" / self.adapter),
        ]
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        }
        for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
            environment[f"{name}_NUM_THREADS"] = str(threads)
        if not device.startswith("cuda"):
            environment["CUDA_VISIBLE_DEVICES"] = ""
        # of its own: code that an earlier run compiled would hide a cold start
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(logs / COMPILED / self.name)
        log = logs / f"{self.name}.log"
        return WorkerProcess(command, environment=environment, log=log)

    @property
    def python(self) -> Path:
        """Return the interpreter of the environment."""
        if self.environment == OURS:
            return Path(sys.executable)
        return PEERS / self.environment / "bin" / "python"


def engines(folder: Path) -> dict[str, Engine]:
    """Return all engines by name; models with random weights are written to a folder.

    An engine whose environment or weights are missing says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    large, direct = folder / "random_22M.pt", folder / "student_direct.pt"
    save_model(random_22m(), large)
    save_model(with_direct_forces(load_network("accurate")), direct)
    found = [*_ours(large, direct), *_peers(large)]
    return {engine.name: engine for engine in found}


def _ours(large: Path, direct: Path) -> list[Engine]:
    return [
        _own("22M", "crack-md 22M", large),
        _own("22M-cpu", "crack-md 22M on the CPU", large, device="cpu"),
        _own("22M-compiled", "crack-md 22M, compiled", large, compile=True),
        _own("22M-tf32", "crack-md 22M, TF32", large, dtype="tf32"),
        _own(
            "22M-tf32-compiled",
            "crack-md 22M, TF32, compiled",
            large,
            dtype="tf32",
            compile=True,
        ),
        _own("22M-bf16", "crack-md 22M, bfloat16", large, dtype="bfloat16"),
        _own(
            "22M-bf16-compiled",
            "crack-md 22M, bfloat16, compiled",
            large,
            dtype="bfloat16",
            compile=True,
        ),
        _own("student", "crack-md packaged student", "accurate"),
        _own(
            "student-cpu",
            "crack-md packaged student on the CPU",
            "accurate",
            device="cpu",
        ),
        _own(
            "student-compiled",
            "crack-md packaged student, compiled",
            "accurate",
            compile=True,
        ),
        _own("student-direct", "crack-md student, direct forces", direct),
        _own(
            "student-direct-compiled",
            "crack-md student, direct forces, compiled",
            direct,
            compile=True,
        ),
    ]


def _own(name: str, title: str, model: Path | str, **options: Any) -> Engine:
    dtype = options.get("dtype", "float32")
    return Engine(
        name,
        title,
        OURS,
        "crack.py",
        {"model": str(model), "any_element": True, **options},
        function=str(model),
        dtype=dtype,
    )


def _peers(large: Path) -> list[Engine]:
    weights = references() / "nequix" / "nequix-oam-1.nqx"
    no_weights = "" if weights.is_file() else f"no weights {weights}"
    return [
        _peer(
            "fairchem-22M",
            "EquiformerV2 22M, fairchem-core 1.10.0",
            "fairchem-v1",
            "fairchem_v1.py",
            {"weights": str(large)},
            function=str(large),
        ),
        _peer(
            "crack-original",
            "original CRACK forward, fairchem-core 1.10.0",
            "fairchem-v1",
            "fairchem_v1.py",
            {"weights": str(large), "teacher_layers": 20},
        ),
        _peer(
            "nequix",
            "Nequix oam-1",
            "nequix",
            "nequix_torch.py",
            {"weights": str(weights)},
            missing=no_weights,
        ),
        _peer(
            "uma-s",
            "UMA-S, fairchem-core 2.24.0",
            "fairchem-v2",
            "fairchem_v2.py",
            {"settings": "multigpu"},
        ),
    ]


def _peer(
    name: str,
    title: str,
    environment: str,
    adapter: str,
    options: dict[str, Any],
    *,
    function: str = "",
    missing: str = "",
) -> Engine:
    if not (PEERS / environment / "bin" / "python").exists():
        missing = f"no environment {environment}; it is made by: {INSTALL}"
    return Engine(
        name, title, environment, adapter, options, function=function, missing=missing
    )
