"""How far the teachers of a label recipe disagree about an adsorbate, by set of metals.

    python benchmarks/label_spreads.py configs/limits_orr.yaml data/orr_round_*

The root mean square over frames with an adsorbate of the spread stored with the label,
divided by the number of adsorbates. Frames with a force beyond 2 eV/Å do not count, and
a frame counts for the smallest set that holds all its metals. The sets are those of the
file of limits, whose numbers for Ni, Co and guests come from here.
"""

import argparse
from itertools import chain
from pathlib import Path

import yaml
from ase.data import atomic_numbers, chemical_symbols

from crack_md.data.readers import read_structures
from crack_md.data.statistics import label_spreads


def main() -> None:
    """Print a line for each set of metals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("limits", type=Path, help="as configs/limits_orr.yaml")
    parser.add_argument("data", type=Path, nargs="+", help="labelled sets")
    options = parser.parse_args()
    entries = yaml.safe_load(options.limits.read_text())["label_spreads"]
    sets = [frozenset(atomic_numbers[m] for m in entry["metals"]) for entry in entries]
    frames = chain.from_iterable(read_structures(path) for path in options.data)
    for spread in label_spreads(frames, sets):
        metals = " ".join(chemical_symbols[z] for z in sorted(spread.metals))
        print(f"{spread.spread_eV:.3f} eV  {metals}")


if __name__ == "__main__":
    main()
