"""What a labelled dataset holds: frames, systems, forces, energies.

    python benchmarks/dataset.py train.aselmdb

Prints for every split how many frames of each kind and family there are, the size of
forces, the spread of energies without element references, and what a model scores that
predicts zero forces: the line every student has to beat.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crack_md.data import LabelledStructure, read_dataset
from crack_md.data.dataset import SPLITS
from crack_md.data.statistics import fit_element_references


def family(structure: LabelledStructure) -> str:
    """Return the first word of the group: fcc111, bulk or H2O."""
    return structure.group.split("-")[0]


def adsorbate(structure: LabelledStructure) -> str:
    """Return what lies on a slab, by its atoms of O and H."""
    oxygen, hydrogen = (int(np.sum(structure.atoms.numbers == z)) for z in (8, 1))
    if oxygen == 0:
        return "clean"
    return "O" if hydrogen == 0 else "OH" if hydrogen == oxygen else "O+OH"


def metals(structure: LabelledStructure) -> int:
    """Return how many different metals a structure has."""
    return int(np.sum(np.unique(structure.atoms.numbers) > 8))


def counts(name: str, values: Counter[str] | Counter[int]) -> str:
    """Return one line of counts, the most frequent first."""
    return f"  {name}: " + ", ".join(f"{k} {n}" for k, n in values.most_common())


def describe(
    structures: Sequence[LabelledStructure], references: dict[int, float]
) -> list[str]:
    """Return the lines about one split."""
    slabs = [s for s in structures if family(s).startswith(("fcc", "hcp"))]
    forces = np.concatenate([s.forces[s.free] for s in structures])
    largest = [np.linalg.norm(s.forces, axis=1).max() for s in structures]
    residual = [
        s.energy - sum(references.get(int(z), 0.0) for z in s.atoms.numbers)
        for s in structures
    ]
    sizes = np.array([len(s.atoms) for s in structures])
    return [
        counts("family", Counter(map(family, structures))),
        counts("kind", Counter(s.kind for s in structures)),
        counts("on slabs", Counter(map(adsorbate, slabs))),
        counts("metals per structure", Counter(map(metals, structures))),
        f"  systems: {len({s.group for s in structures})}",
        f"  atoms: {sizes.min()} to {sizes.max()}, median {np.median(sizes):.0f}",
        f"  force components: RMS {np.sqrt(np.mean(forces**2)):.3f} eV/Å, "
        f"MAE of zero forces {1000 * np.abs(forces).mean():.0f} meV/Å",
        f"  largest force: median {np.median(largest):.2f}, "
        f"95 % below {np.percentile(largest, 95):.2f} eV/Å",
        f"  energy without element references: spread {np.std(residual):.2f} eV, "
        f"{1000 * np.std(residual / sizes):.0f} meV/atom",
    ]


def main() -> None:
    """Print the description of a dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    path = parser.parse_args().dataset
    dataset = read_dataset(path)
    for name in ("teacher", "teacher_sha256", "n_features", "gas_references"):
        print(f"{name}: {dataset.metadata.get(name)}")
    print(f"fingerprint: {dataset.metadata.get('fingerprint')}")
    fitted = dataset.select("train") or dataset.structures
    references = fit_element_references(fitted)
    for split in SPLITS:
        if structures := dataset.select(split):
            print(f"{split}: {len(structures)} frames")
            print("\n".join(describe(structures, references)))


if __name__ == "__main__":
    main()
