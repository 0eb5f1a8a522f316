"""How honest intervals are: handfuls of DFT values predict all the others.

    python benchmarks/screening.py score --parts gpaw --json scores.json
    python benchmarks/calibration.py scores.json

From the adsorption energies of alloys by a model and by DFT that `screening.py score`
compares, a few are drawn at random, `calibrate` corrects the model by them, and the
rest are predicted. Printed are the share that lies in its 95 % interval, the half width
of that interval, and the error that is left, each over all draws.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crack_md.workflows.ranking.calibration import calibrate
from crack_md.workflows.ranking.errors import Estimates

HANDFULS = (1, 2, 3, 4, 6, 8, 12)
LEVEL = 0.95


@dataclass(frozen=True)
class Honesty:
    """What handfuls of one size are good for."""

    n: int
    covered: float
    half_width_eV: float
    """Median."""
    mean_error_eV: float
    """Mean absolute error of what was predicted."""


def honesty(
    model: ndarray, dft: ndarray, *, n: int, draws: int, seed: int = 0
) -> Honesty:
    """Return coverage, width and error over random handfuls of ``n`` values."""
    random = np.random.default_rng(seed)
    inside, widths, errors = [], [], []
    for _ in range(draws):
        chosen = random.permutation(len(model))
        known, rest = chosen[:n], chosen[n:]
        found = calibrate(model[known], dft[known], level=LEVEL)
        predicted = found.apply(Estimates(model[rest]))
        low, high = predicted.interval(LEVEL)
        inside.append(np.mean((low <= dft[rest]) & (dft[rest] <= high)))
        widths.append(np.median(high - low) / 2)
        errors.append(np.mean(np.abs(dft[rest] - predicted.center_eV)))
    return Honesty(
        n, float(np.mean(inside)), float(np.median(widths)), float(np.mean(errors))
    )


def main(arguments: list[str] | None = None) -> None:
    """Print one line for each size of handful."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scores", type=Path, help="JSON of screening.py score")
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args(arguments)
    values = json.loads(options.scores.read_text())["gpaw"]["values"][1:]
    model = np.array([value["model"] for value in values])
    dft = np.array([value["dft"] for value in values])
    print(f"{len(values)} alloys, {options.draws} draws")
    print("values  in 95 %  half width / eV  mean error / eV")
    for n in HANDFULS:
        found = honesty(model, dft, n=n, draws=options.draws)
        print(
            f"{n:6d} {100 * found.covered:7.1f}% {found.half_width_eV:16.2f} "
            f"{found.mean_error_eV:16.3f}"
        )


if __name__ == "__main__":
    main()
