"""Memory and time of every loss on a batch with a hundred thousand pairs of atoms.

    python benchmarks/loss_memory.py --pairs 100000

Each loss runs forward and backward in a process of its own, on random features of 128
channels. The peak is that of the whole process, Python and PyTorch included; a loss
above the limit makes the command fail.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crack_md.graph import AtomGraph
from crack_md.models.force_field import Prediction
from crack_md.training.data.frames import JacobianBatch, Labels
from crack_md.training.losses import (
    Contrast,
    CrackLoss,
    DistillationStep,
    EnergyLoss,
    Features,
    ForceLoss,
    HessianLoss,
    InstanceLoss,
    LossTerm,
    NodeEnergyLoss,
    NodeToNodeLoss,
    TripletLoss,
)

SLOTS, CHANNELS, ELEMENTS = 20, 128, (8, 46, 47, 78)
LIMIT_GB = 2.0


def contrast(**changes: object) -> Contrast:
    """Return the settings of the paper, with changes."""
    options = {
        "temperature": 0.15,
        "anchor": "teacher",
        "negatives": "structure",
        "chunk": 1024,
    }
    return Contrast(**(options | changes))  # type: ignore[arg-type]


def crack(
    *, degrees: tuple[int, ...] = (0,), same_elements: bool = False, **changes: object
) -> CrackLoss:
    """Return the relational loss of the paper, with changes."""
    return CrackLoss(contrast(**changes), "unique", 1e-3, degrees, same_elements)


LOSSES: dict[str, Callable[[], LossTerm]] = {
    "task": lambda: ForceLoss("task", 1.0),
    "output": lambda: EnergyLoss("output", 1.0, True),
    "n2n": NodeToNodeLoss,
    "node_energy": lambda: NodeEnergyLoss(0.1, True),
    "instance": lambda: InstanceLoss(contrast(negatives="global")),
    "triplet": lambda: TripletLoss(8, "smooth_l1", 1e-3),
    "hessian": lambda: HessianLoss("gradient", 2, 1.0, 0.01),
    "crack": crack,
    "crack, degrees 0-2": lambda: crack(degrees=(0, 1, 2)),
    "crack, same elements": lambda: crack(same_elements=True),
    "crack, sample of 1024": lambda: crack(negatives="global", sample=1024),
    "crack, global": lambda: crack(negatives="global"),
}


def batch(n_pairs: int, *, n_structures: int, n_degrees: int) -> DistillationStep:
    """Return random structures of equal size with about so many pairs of neighbors."""
    torch.manual_seed(0)
    n_atoms = n_pairs // SLOTS
    size = n_atoms // n_structures
    n_atoms = size * n_structures
    structure = torch.arange(n_atoms) // size
    # atoms less than half a ring ahead: no pair is met from both ends
    ahead = torch.rand(n_atoms, (size - 1) // 2).argsort(dim=1)[:, :SLOTS] + 1
    place = (torch.arange(n_atoms)[:, None] % size + ahead) % size
    graph = AtomGraph(
        positions=torch.randn(n_atoms, 3).requires_grad_(),
        atomic_numbers=torch.tensor(ELEMENTS)[torch.randint(4, (n_atoms,))],
        cell=torch.eye(3).expand(n_structures, 3, 3),
        pbc=torch.ones(n_structures, 3).bool(),
        batch=structure,
        neighbors=size * structure[:, None] + place,
        cell_shift=torch.zeros(n_atoms, SLOTS, 3),
        mask=torch.ones(n_atoms, SLOTS).bool(),
    )
    widths = [(2 * degree + 1) * CHANNELS for degree in range(n_degrees)]
    energy = torch.zeros(n_structures, dtype=torch.float64)
    atomic = torch.randn(n_atoms, dtype=torch.float64)
    student = Prediction(
        energy=energy.clone().requires_grad_(),
        forces=graph.positions.sin(),
        stress=None,
        node_features=torch.empty(n_atoms, 1, 0),
        node_energy=atomic.clone().requires_grad_(),
    )
    teacher = student._replace(energy=energy, node_energy=atomic.flip(0))
    moved = size * torch.arange(n_structures)[:, None].expand(-1, 4)
    return DistillationStep(
        graph,
        student,
        teacher,
        Labels(energy, torch.randn(n_atoms, 3), atomic > 0, torch.bincount(structure)),
        features=tuple(
            Features(torch.randn(n_atoms, w), torch.randn(n_atoms, w).requires_grad_())
            for w in widths
        ),
        jacobian=JacobianBatch(moved, moved % 3, torch.randn(4, n_atoms, 3)),
    )


def measure(name: str, *, n_pairs: int, n_structures: int) -> dict[str, float]:
    """Return time and peak memory of one loss in this process."""
    step = batch(
        n_pairs, n_structures=n_structures, n_degrees=3 if "degrees" in name else 1
    )
    term = LOSSES[name]()
    before = _peak_memory()
    started = time.perf_counter()
    loss = term(step)
    loss.backward()
    return {
        "loss": loss.item(),
        "time_s": time.perf_counter() - started,
        "peak_GB": _peak_memory(),
        "above_inputs_GB": _peak_memory() - before,
    }


def _peak_memory() -> float:
    # ru_maxrss is in KiB, on macOS in bytes
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> int:
    """Print a table, and say by the exit code whether all stay below the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--structures", type=int, default=50)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--losses", nargs="*", default=list(LOSSES), choices=LOSSES)
    parser.add_argument("--here", action="store_true", help="one loss, as JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes = {"n_pairs": options.pairs, "n_structures": options.structures}
    if options.here:
        print(json.dumps(measure(options.losses[0], **sizes)))
        return 0
    print(f"{options.pairs} pairs in {options.structures} structures, float32")
    print(f"{'loss':24}{'value':>10}{'time/s':>10}{'peak/GB':>10}{'+inputs':>10}")
    largest = 0.0
    for name in options.losses:
        command = [sys.executable, __file__, *sys.argv[1:], "--here", "--losses", name]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(answer.stdout)
        largest = max(largest, found["peak_GB"])
        print(
            f"{name:24}{found['loss']:10.4f}{found['time_s']:10.2f}"
            f"{found['peak_GB']:10.2f}{found['above_inputs_GB']:10.2f}",
            flush=True,
        )
    verdict = "within" if largest <= LIMIT_GB else "ABOVE"
    print(f"largest peak {largest:.2f} GB: {verdict} the limit of {LIMIT_GB:.0f} GB")
    return int(largest > LIMIT_GB)


if __name__ == "__main__":
    sys.exit(main())
