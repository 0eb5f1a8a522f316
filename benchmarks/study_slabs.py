"""Screen slabs of held-out pairs by the source of a study's labels.

    python benchmarks/study_slabs.py --teacher nequix:nequix-oam-1.nqx

A study that names the folder as ``evaluate.adsorption`` compares what its students say
of O* on these slabs, relaxed, with what the source says.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import fcc111

from crack_md import screen
from crack_md.data.labelling import gas_references
from crack_md.models.teachers import TeacherCalculator, load_teacher
from crack_md.progress import show_events

PAIRS = (("Ag", "Pd"), ("Cu", "Ir"), ("Au", "Rh"))
"""As configs/study_second_order.yaml holds them out."""
CONSTANTS_A = {"Ag": 4.15, "Au": 4.16, "Cu": 3.63, "Ir": 3.87, "Pd": 3.95, "Rh": 3.83}
"""As in configs/augment_orr.yaml."""
EACH = 4
SITES = 3


def slabs() -> Iterator[Atoms]:
    """Yield three-layer (111) slabs of 12 atoms, half of them of each metal."""
    random = np.random.default_rng(7)
    for pair in PAIRS:
        a = sum(CONSTANTS_A[symbol] for symbol in pair) / 2
        for number in range(EACH):
            slab = fcc111(pair[0], (2, 2, 3), a=a, vacuum=8.0, periodic=True)
            slab.symbols[random.permutation(12)[:6]] = pair[1]
            slab.info["name"] = f"{pair[0]}{pair[1]}-{number}"
            yield slab


def main() -> None:
    """Screen them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--teacher", required=True, help="as crack-md label takes it")
    parser.add_argument("--out", type=Path, default=Path("runs/study_slabs"))
    options = parser.parse_args()
    teacher = load_teacher(options.teacher)
    with show_events() as report:
        screen(
            list(slabs()),
            TeacherCalculator(teacher),
            adsorbates=["O"],
            out=options.out,
            max_sites=SITES,
            gas_energies=gas_references(teacher),
            report=report,
        )


if __name__ == "__main__":
    main()
