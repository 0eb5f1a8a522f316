"""Measure the packaged student: errors on held-out element pairs, then O* adsorption.

    python benchmarks/packaged_student.py --data data/train_wide.aselmdb

The dataset is the one that configs/ makes; its test split holds every frame with
Ag–Pd, Cu–Ir or Au–Rh, in any stoichiometry and with any further element. The adsorption
part is `benchmarks/screening.py score`.
"""

import argparse
import json
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import screening
from crack_md.data import read_dataset
from crack_md.models.checkpoint import load_model
from crack_md.training.build import build_frames
from crack_md.training.evaluate import Evaluation, evaluate, known_frames

TARGETS = {"force_mae_meV_per_A": 50.0, "energy_mae_meV_per_atom": 5.0}
"""On held-out element pairs, against the teacher."""


def held_out_errors(model_name: str, data: Path) -> Evaluation:
    """Return the errors against the teacher on the test split."""
    model = load_model(model_name)
    frames = known_frames(model, read_dataset(data).select("test"))
    return evaluate(model, build_frames(frames, model), against="teacher")


def print_errors(found: Evaluation) -> None:
    """Print all frames and every kind of them beside the targets."""
    for name, metrics in {"held-out pairs": found.all, **found.kinds}.items():
        values = metrics.as_dict()
        line = ", ".join(f"{key} {values[key]:.1f}" for key in TARGETS)
        print(f"{name} ({values['n_frames']} frames): {line}")
    print(f"targets: {TARGETS}")


def main() -> None:
    """Print the errors and write them to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--data", type=Path, default=Path("data/train_wide.aselmdb"))
    parser.add_argument("--out", type=Path, default=Path("runs/packaged_student"))
    parser.add_argument("--limit", default="60", help="alloy slabs of GPAW")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.data.exists():
        found = held_out_errors(options.model, options.data)
        text = json.dumps(found.as_dict(), indent=2)
        (options.out / "held_out.json").write_text(text + "\n")
        print_errors(found)
    else:
        print(f"no dataset {options.data}: errors on held-out pairs are left out")
    score = ["score", "--model", options.model, "--limit", options.limit]
    score += ["--out", str(options.out / "screening")]
    score += ["--json", str(options.out / "scores.json")]
    screening.main(score)


if __name__ == "__main__":
    main()
