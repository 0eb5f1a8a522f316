"""Ten steps of the paper's training at its full size: 153M teacher, 22M student.

    crack-md prepare oc20 0.tar --out data/oc20_ostar.aselmdb
    python benchmarks/full_size.py --data data/oc20_ostar.aselmdb

The teacher has random weights, in a file of the public format: what its labels are
worth changes neither time nor memory. All else is configs/oc20_ostar.yaml. Prints
seconds per step, their shares, and the peak memory of the process.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crack_md.models.equiformer.equiformer_v2 import EquiformerV2, EquiformerV2Config
from crack_md.training.config import load_config
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "oc20_ostar.yaml"
PUBLIC_OPTIONS: dict[str, Any] = {
    "max_neighbors": 20,
    "max_radius": 12.0,
    "num_layers": 20,
    "attn_hidden_channels": 64,
    "attn_alpha_channels": 64,
    "ffn_hidden_channels": 128,
    "norm_type": "layer_norm_sh",
    "lmax_list": [6],
    "mmax_list": [3],
    "grid_resolution": 18,
    "use_grid_mlp": True,
}
"""Of the published 153M model, as far as they differ from the public class's own."""


def write_teacher(path: Path) -> int:
    """Write a 153M EquiformerV2 of random weights as the public code would."""
    torch.manual_seed(0)
    network = EquiformerV2(EquiformerV2Config())
    std = torch.tensor(2.887317)
    torch.save(
        {
            "state_dict": {
                f"module.module.{name}": weight
                for name, weight in network.state_dict().items()
            },
            "normalizers": {
                "target": {"mean": torch.tensor(-0.755445), "std": std},
                "grad_target": {"mean": torch.tensor(0.0), "std": std},
            },
            "config": {"model": "equiformer_v2", "model_attributes": PUBLIC_OPTIONS},
        },
        path,
    )
    return sum(weight.numel() for weight in network.parameters())


def peak_gb() -> dict[str, float]:
    """Return the largest memory of the process so far, and that of the GPU."""
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def main() -> None:
    """Train, measure, print, and write the figures to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="from prepare oc20")
    parser.add_argument("--out", type=Path, default=Path("runs/full_size"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--frames", type=int, default=8, help="labelled at the start, for statistics"
    )
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], help="of the recipe")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    teacher = options.out / "random_153M.pt"
    n_teacher = write_teacher(teacher)
    run = options.out / time.strftime("run-%Y%m%d-%H%M%S")
    config = load_config(
        RECIPE,
        [
            f"student.init_from={teacher}",
            f"teacher.spec=eqv2:{teacher}",
            f"data.path={options.data}",
            "data.validation_frames=1",
            f"data.max_frames={options.frames}",
            f"data.store={options.out / 'store'}",
            f"run.folder={run}",
            f"run.max_steps={options.steps}",
            f"run.batch_size={options.batch_size}",
            "run.log_every=1",
            *options.set,
        ],
    )
    summary = train(config)
    steps = [one["step_s"] for one in RunFolder(run).metrics() if "step_s" in one]
    result = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "teacher_weights": n_teacher,
        "steps": summary.step,
        "batch_size": options.batch_size,
        "seconds_per_step": round(sum(steps) / len(steps), 2),
        "peak_memory_GB": {name: round(gb, 2) for name, gb in peak_gb().items()},
    }
    (options.out / "full_size.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
