"""Where the packaged student goes by itself, and what its label source says of it.

    python benchmarks/own_chains.py run --out runs/own_chains
    crack-md label runs/own_chains/frames.aselmdb --recipe configs/labels_orr.yaml \
        --features none --largest-force 1000 --out runs/own_chains/labels.aselmdb
    python benchmarks/own_chains.py judge --out runs/own_chains

Langevin chains of O on Pt(111), on Pt3Ni(111) with a skin of platinum and on a random
alloy, 17 atoms, 700 K. Chains of the label source would take days. Its energies on
frames of the student's chains take minutes, and give its averages as well: a frame
counts by exp(-(E_label - E_student)/kT), which turns one Boltzmann distribution into
the other (Zwanzig, J. Chem. Phys. 22, 1420 (1954)), as long as enough frames count.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from ase.geometry import get_distances
from jaxtyping import Bool, Float

from crack_md.calculators import CrackCalculator, Langevin, Replicas
from crack_md.data.dataset import LabelledStructure, read_dataset
from crack_md.data.readers import read_structures
from crack_md.data.writer import RowWriter
from crack_md.workflows.sampling.metrics import wasserstein_1

TEMPERATURE_K = 700.0
KT_EV = units.kB * TEMPERATURE_K
CHAINS = 16
TIMESTEP_FS = 2.0
EQUILIBRATE, STEPS, EVERY = 1000, 5000, 250
GROUPS = 8
"""Of chains, that are shared between two sides in 35 ways for the noise floor."""
FEWEST = 50
"""Frames that must count for a verdict, as in `crack-md sample`."""
WORST = 2.0
"""Times the noise floor, as there."""


def systems() -> dict[str, Atoms]:
    """Return the slabs with O in a hollow; the lowest layer is held."""
    skin = ["Pt"] * 3 + ["Ni"] + ["Pt"] * 3 + ["Ni"] + ["Pt", "Ni"] * 2 + ["Pt"] * 4
    random = np.random.default_rng(4).choice(["Ag", "Ir", "Pd", "Pt", "Ru"], size=16)
    found = {}
    for name, metals, a in (
        ("O/Pt(111)", ["Pt"] * 16, 3.97),
        ("O/Pt3Ni(111), skin", skin, 3.88),
        ("O/AgIrPdPtRu(111)", list(random), 3.93),
    ):
        slab = fcc111("Pt", (2, 2, 4), a=a, vacuum=8.0)
        slab.symbols[:] = metals
        add_adsorbate(slab, "O", 1.2, "fcc")
        slab.set_constraint(FixAtoms(mask=slab.get_tags() == 4))
        found[name] = slab
    return found


def run(model: str, out: Path) -> None:
    """Run the chains and write their frames, with the student's energies."""
    calculator = CrackCalculator(model)
    writer = RowWriter(out / "frames.aselmdb", job={"model": model}, overwrite=True)
    blow_ups = {}
    for name, slab in systems().items():
        dynamics = Langevin(TEMPERATURE_K, friction_per_ps=5.0, timestep_fs=TIMESTEP_FS)
        chains = Replicas([slab.copy() for _ in range(CHAINS)], calculator, dynamics)
        chains.run(EQUILIBRATE)
        for _ in range(STEPS // EVERY):
            chains.run(EVERY)
            rows = chains.structures()
            for chain, atoms in enumerate(rows):
                energy, forces = atoms.get_potential_energy(), atoms.get_forces()
                atoms.info = {
                    "group": f"{name}/{chain}",
                    "kind": "thermal",
                    "student_energy": energy,
                    "student_forces": forces,
                }
                atoms.calc = None  # or they would be taken for labels
            writer.append(rows, done=writer.done + 1)
        blow_ups[name] = int(chains.n_blow_ups.sum())
    writer.finish({"blow_ups": blow_ups})
    (out / "blow_ups.json").write_text(json.dumps(blow_ups) + "\n")


@dataclass(frozen=True)
class Verdict:
    """What is said of one system."""

    frames: int
    blow_ups: int
    force_mae_meV_per_A: float
    """Of atoms that move, against the label source."""
    energy_spread_meV: float
    """Standard deviation of E_label - E_student: a constant does not matter."""
    effective_frames: float
    """(Σw)²/Σw²: how many frames count."""
    sites: dict[str, tuple[float, float]]
    """Share of time over each kind of site: by the student, by the label source."""
    height_A: tuple[float, float]
    """Mean height of O above the upper layer, likewise."""
    worst: dict[str, float]
    """W1 of energies, heights, the share on fcc and distances, over the noise floor."""

    @property
    def word(self) -> str:
        """Return PASS, FAIL or INCONCLUSIVE."""
        if self.blow_ups > 0.01 * CHAINS:
            return "FAIL"
        if self.effective_frames < FEWEST:
            return "INCONCLUSIVE"
        return "PASS" if max(self.worst.values()) <= WORST else "FAIL"


def judge_system(
    frames: list[LabelledStructure],
    student: list[tuple[float, np.ndarray]],
    chains: np.ndarray,
    blow_ups: int,
) -> Verdict:
    """Compare the student's distribution with the one that its label source has."""
    difference = np.array(
        [one.energy - energy for one, (energy, _) in zip(frames, student, strict=True)]
    )
    weights = np.exp(-(difference - difference.min()) / KT_EV)
    weights /= weights.sum()
    uniform = np.full(len(frames), 1 / len(frames))
    effective = 1 / float(np.square(weights).sum())
    errors = [
        np.abs(one.forces - forces)[one.free].ravel()
        for one, (_, forces) in zip(frames, student, strict=True)
    ]
    # fewer frames count on the other side, which has a larger noise floor
    widening = np.sqrt((1 + len(frames) / effective) / 2)
    worst = {}
    for name, (values, owner) in observables(frames, student).items():
        if np.ptp(values) == 0:  # O that never left fcc
            continue
        counts = np.bincount(owner, minlength=len(frames))
        apart = distance(values, (weights - uniform)[owner] / np.mean(counts))
        floor = np.mean(
            [
                distance(
                    values,
                    (side / side.sum() - ~side / (~side).sum())[owner]
                    / np.mean(counts),
                )
                for side in sides(chains)
            ]
        )
        worst[name] = float(apart / (floor * widening))
    kinds, heights = zip(*(place(one.atoms) for one in frames), strict=True)
    return Verdict(
        len(frames),
        blow_ups,
        1e3 * float(np.concatenate(errors).mean()),
        1e3 * float(difference.std()),
        effective,
        {
            kind: tuple(
                float(share[np.array(kinds) == kind].sum())
                for share in (uniform, weights)
            )
            for kind in ("fcc", "hcp", "top")
        },
        (float(uniform @ np.array(heights)), float(weights @ np.array(heights))),
        worst,
    )


def observables(
    frames: list[LabelledStructure], student: list[tuple[float, np.ndarray]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return values, and which frame each belongs to, by name."""
    energies = np.array([energy for energy, _ in student])
    each = np.arange(len(frames))
    kinds, heights = zip(*(place(one.atoms) for one in frames), strict=True)
    found = {
        "energy": (energies, each),
        "height": (np.array(heights), each),
        "share on fcc": ((np.array(kinds) == "fcc").astype(float), each),
    }
    symbols = np.array(frames[0].atoms.get_chemical_symbols())
    distances = np.stack([one.atoms.get_all_distances(mic=True) for one in frames])
    first, second = np.triu_indices(len(symbols), k=1)
    free = frames[0].free
    moves = free[first] | free[second]
    for pair in combinations_of(symbols):
        alike = [
            sorted(ends) == list(pair)
            for ends in zip(symbols[first], symbols[second], strict=True)
        ]
        chosen = np.array(alike) & moves
        if chosen.any():
            values = distances[:, first[chosen], second[chosen]]
            owner = np.repeat(np.arange(len(frames)), values.shape[1])
            found["–".join(pair)] = (values.ravel(), owner)
    return found


def combinations_of(symbols: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield all pairs of elements, each sorted."""
    elements = sorted(set(symbols))
    yield from ((one, one) for one in elements)
    yield from combinations(elements, 2)


def distance(values: np.ndarray, signed: np.ndarray) -> float:
    """Return the Wasserstein-1 distance of two weightings of the same values."""
    order = np.argsort(values, kind="stable")
    return wasserstein_1(values[order], signed[order])


def sides(chains: np.ndarray) -> Iterator[Bool[np.ndarray, " frame"]]:
    """Yield the frames of one of two sides, for all ways to share groups of chains."""
    groups = chains % GROUPS
    for half in combinations(range(1, GROUPS), GROUPS // 2 - 1):
        yield np.isin(groups, (0, *half))


def place(atoms: Atoms) -> tuple[str, float]:
    """Return over what O is, by the nearest atom seen from above, and its height."""
    layers = np.arange(16) // 4
    oxygen = atoms.positions[-1]
    flat = atoms.copy()
    flat.positions[:, 2] = 0
    _, ways = get_distances(
        flat.positions[-1:], flat.positions[4:16], cell=atoms.cell, pbc=(1, 1, 0)
    )
    nearest = int(layers[4 + int(ways[0].argmin())])
    height = oxygen[2] - atoms.positions[12:16, 2].mean()
    return {3: "top", 2: "hcp", 1: "fcc"}[nearest], float(height)


def judge(out: Path) -> None:
    """Print a row for each system, and write all numbers."""
    labelled = read_dataset(out / "labels.aselmdb")
    asked = student_answers(out / "frames.aselmdb")
    blow_ups = json.loads((out / "blow_ups.json").read_text())
    record = {}
    print(
        "| | frames | blow-ups | forces, meV/Å | E − E, meV | frames that count | "
        "fcc, hcp, top | label source | height, Å | worst × floor | verdict |\n"
        + "|---" * 11
        + "|"
    )
    for name in systems():
        chosen = [
            number
            for number, one in enumerate(labelled.structures)
            if one.group.rpartition("/")[0] == name
        ]
        frames = [labelled.structures[number] for number in chosen]
        chains = np.array([int(one.group.rpartition("/")[2]) for one in frames])
        student = [asked[number] for number in chosen]
        found = judge_system(frames, student, chains, blow_ups[name])
        record[name] = asdict(found) | {"verdict": found.word}
        shares = [
            ", ".join(f"{100 * found.sites[kind][side]:.0f}" for kind in found.sites)
            for side in (0, 1)
        ]
        pair, worst = max(found.worst.items(), key=lambda one: one[1])
        print(
            f"| {name} | {found.frames} | {found.blow_ups} | "
            f"{found.force_mae_meV_per_A:.0f} | {found.energy_spread_meV:.0f} | "
            f"{found.effective_frames:.0f} | {shares[0]} % | {shares[1]} % | "
            f"{found.height_A[0]:.3f}, {found.height_A[1]:.3f} | "
            f"{worst:.1f} ({pair}) | {found.word} |"
        )
    (out / "verdict.json").write_text(json.dumps(record, indent=1) + "\n")


def student_answers(
    path: Path,
) -> list[tuple[float, Float[np.ndarray, "atom 3"]]]:
    """Return the student's energy and forces of every frame, in their order."""
    return [
        (
            float(one.info["student_energy"]),
            np.reshape(one.info["student_forces"], (-1, 3)),
        )
        for one in read_structures(path)
    ]


def main() -> None:
    """Run chains, or judge them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", choices=("run", "judge"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run(given.model, given.out) if given.part == "run" else judge(given.out)


if __name__ == "__main__":
    main()
