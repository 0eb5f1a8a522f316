"""How long a fresh process takes until the first energy.

    python -m crack_md.bench.cold_start < request.json

is what `cold_start` runs: Python, the imports, the model and the first call are timed
as a user meets them, apart from what an earlier process left in caches on disk.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import ase

from crack_md.errors import CrackError


@dataclass(frozen=True)
class ColdStart:
    """Seconds from the start of Python on."""

    import_s: float
    """Python and the libraries."""
    load_s: float
    """The model, on its device."""
    first_s: float
    """The first energy and forces, compilation included."""

    @property
    def total_s(self) -> float:
        """Return the time until the first result."""
        return self.import_s + self.load_s + self.first_s


def cold_start(model: str, atoms: ase.Atoms, **options: Any) -> ColdStart:
    """Return how long a new process takes for the first energy and forces.

    Args:
        model: A file or a name.
        atoms: What is evaluated.
        options: Of `CrackCalculator`.

    Raises:
        CrackError: The process failed.
    """
    request = {
        "model": model,
        "options": options,
        "atoms": {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": atoms.pbc.tolist(),
        },
    }
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "crack_md.bench.cold_start"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    total = time.perf_counter() - begin
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CrackError(f"a fresh process with the model failed: {last}")
    times = json.loads(done.stdout.splitlines()[-1])
    return ColdStart(total - sum(times.values()), times["load_s"], times["first_s"])


def _main() -> None:
    from crack_md.calculators import CrackCalculator

    request = json.load(sys.stdin)
    begin = time.perf_counter()
    calculator = CrackCalculator(request["model"], **request["options"])
    loaded = time.perf_counter()
    atoms = ase.Atoms(**request["atoms"], calculator=calculator)
    atoms.get_forces()
    first = time.perf_counter()
    sys.stdout.write(
        json.dumps({"load_s": loaded - begin, "first_s": first - loaded}) + "\n"
    )


if __name__ == "__main__":
    _main()
