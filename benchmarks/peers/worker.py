"""Times one engine in its own environment, asked line by line.

    python worker.py adapters/crack.py

A request is one line of JSON on stdin, an answer one line on stdout: {"do": NAME, ...}
and {"ok": true, ...} or {"ok": false, "error": REASON, "memory": WHETHER}. What
libraries print goes to stderr. Standard library alone, from Python 3.10 on: the
environments of peers have no crack_md. An adapter is a module with ``start(threads)``
and ``load(options)``, which returns a `peer.Peer`.

    load      options, threads, memory_limit   → about, import_s, load_s, base_bytes
    prepare   work, structures                 → n_atoms
    call      n                                → seconds, peak_bytes
    predict                                    → energies, forces
    count                                      → flops, bytes
    rates     dtype                            → flops_per_s, bytes_per_s
    release
    quit
"""

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
TIMING = HERE.parents[1] / "crack_md" / "bench" / "timing.py"
MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def module_at(path: Path) -> Any:
    """Return the module of a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Worker:
    """Holds one engine and the structures it is asked about."""

    def __init__(self, adapter: Path) -> None:
        self.adapter = adapter
        self.timing = module_at(TIMING)
        self.peer: Any = None
        self.case: Any = None
        self.base_bytes = 0

    def load(
        self, options: dict[str, Any], threads: int, memory_limit: int | None
    ) -> dict[str, Any]:
        """Import the libraries and build the model, each timed."""
        if memory_limit is not None:
            limit_memory(memory_limit)
        begin = time.perf_counter()
        adapter = module_at(self.adapter)
        adapter.start(threads)
        imported = time.perf_counter()
        self.base_bytes = self.timing.resident_bytes()
        self.peer = adapter.load(options)
        self.peer.synchronize()
        loaded = time.perf_counter()
        return {
            "about": self.peer.about,
            "import_s": imported - begin,
            "load_s": loaded - imported,
            "base_bytes": self.base_bytes,
        }

    def prepare(self, work: str, structures: list[dict[str, Any]]) -> dict[str, Any]:
        """Take over structures; nothing is evaluated."""
        self.release()
        self.case = self.peer.case(work, structures)
        return {"n_atoms": sum(len(one["numbers"]) for one in structures)}

    def call(self, n: int) -> dict[str, Any]:
        """Time some evaluations, the atoms moved a little before each."""
        self.timing.reset_peak()
        self.peer.reset_peak()
        seconds = self.timing.seconds_per_call(
            self.case,
            n,
            advance=self.case.advance,
            synchronize=self.peer.synchronize,
        )
        peak = self.peer.peak_bytes()
        if peak is None:
            peak = self.timing.peak_bytes() - self.base_bytes
        return {"seconds": seconds, "peak_bytes": peak}

    def predict(self) -> dict[str, Any]:
        """Return what the engine says about the structures as they came."""
        energies, forces = self.case.predict()
        return {"energies": energies, "forces": forces}

    def count(self) -> dict[str, Any]:
        """Count operations and bytes of one evaluation, where the adapter can."""
        flops, moved = self.peer.count(self.case)
        return {"flops": flops, "bytes": moved}

    def rates(self, dtype: str) -> dict[str, Any]:
        """Measure what the machine reaches with a large product and a large copy."""
        flops, moved = self.peer.rates(dtype)
        return {"flops_per_s": flops, "bytes_per_s": moved}

    def release(self) -> dict[str, Any]:
        """Forget the structures and give memory back."""
        self.case = None
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # not everywhere glibc
            ctypes.CDLL(None).malloc_trim(0)
        if self.peer is not None:
            self.peer.release()
        return {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request; errors are answers too."""
        arguments = {key: value for key, value in request.items() if key != "do"}
        try:
            return {"ok": True, **getattr(self, request["do"])(**arguments)}
        except Exception as error:  # peers raise whatever they like
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            failed = {"ok": False, "error": brief(error), "memory": is_memory(error)}
        self.case = None
        return failed


def brief(error: BaseException) -> str:
    """Return type and first line of an error; the text alone of what cannot be done."""
    if isinstance(error, NotImplementedError):
        return str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".rstrip(": ")


def is_memory(error: BaseException) -> bool:
    """Return whether memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(word in text for word in MEMORY_WORDS)


def limit_memory(n_bytes: int) -> None:
    """Let allocations beyond a limit fail (Linux; elsewhere there is no limit)."""
    if sys.platform.startswith("linux"):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))


def private_stdout() -> TextIO:
    """Return a stream to the driver that no library can write to."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return channel


def main() -> None:
    """Answer requests until there are no more."""
    channel = private_stdout()
    worker = Worker(Path(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "quit":
            break
        channel.write(json.dumps(worker.answer(request)) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
