"""Distances, convergence and spurious frames of a sample beside its reference.

A frame is spurious if it has

    a bond outside the 0.1 % and 99.9 % quantiles of the reference, 0.1 Å further out;
    a bond the reference has not: a pair as near as bonded atoms, and 0.1 Å nearer than
    the 0.1 % quantile of the reference;
    an energy below the 0.1 % quantile by more than a standard deviation, or above the
    99.9 % quantile by more than two.

A chain has blown up where a bond is 0.5 Å off its mean in the reference, as in Fu et
al., "Forces are not enough", arXiv:2210.07237, and twice as far as in any frame of it:
bonds of metals reach 0.5 Å now and then. Where the tail of N values is exponential, the
farthest is seen once, and twice as far has a chance of 1/N² each time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from jaxtyping import Bool, Float, Int

from crack_md.data.torsions import (
    BLOW_UP_A,
    BOND_FACTOR,
    BondGraph,
    Positions,
    broken_bond,
    distances,
    free_pairs,
)
from crack_md.progress import ProgressEvent, Report
from crack_md.workflows.sampling.chains import SampledChains
from crack_md.workflows.sampling.metrics import (
    N_GROUPS,
    Comparison,
    compare,
    effective_sample_size,
    split_r_hat,
    time_blocks,
)
from crack_md.workflows.sampling.molecule import (
    MoleculeTopology,
    Observable,
    energy_window,
    geometric_observables,
    monitors,
)
from crack_md.workflows.sampling.reference import ReferenceFrames

BOND_MARGIN_A = 0.1
QUANTILES = (0.001, 0.999)

Mask = Bool[np.ndarray, " frame"]


@dataclass(frozen=True)
class GeometryLimits:
    """Ranges of bond lengths and distances, in Å."""

    bonds: Int[np.ndarray, "bond 2"]
    shortest: Float[np.ndarray, " bond"]
    longest: Float[np.ndarray, " bond"]
    means: Float[np.ndarray, " bond"]
    breaking: Float[np.ndarray, " bond"]
    """How far off its mean a bond has come apart."""
    apart: Int[np.ndarray, "pair 2"]
    """Pairs that are not bonded."""
    nearest: Float[np.ndarray, " pair"]
    """What they do not come below."""

    @classmethod
    def of(cls, graph: BondGraph, frames: Positions) -> "GeometryLimits":
        """Return the limits that frames set; bonds that are alike share theirs."""
        bonds = np.array(graph.bonds)
        lengths = distances(frames, bonds)
        colors = [tuple(sorted((graph.colors[i], graph.colors[j]))) for i, j in bonds]
        low, high, means, breaking = (np.empty(len(bonds)) for _ in range(4))
        for color in set(colors):
            alike = np.array([other == color for other in colors])
            low[alike], high[alike] = np.quantile(lengths[:, alike], QUANTILES)
            means[alike] = lengths[:, alike].mean()
            farthest = np.abs(lengths[:, alike] - means[alike]).max(initial=0.0)
            breaking[alike] = max(BLOW_UP_A, 2.0 * farthest)
        apart = free_pairs(graph)
        radii = covalent_radii[np.array(graph.numbers)]
        seen = np.quantile(distances(frames, apart), QUANTILES[0], axis=0)
        nearest = np.minimum(
            BOND_FACTOR * radii[apart].sum(axis=1), seen - BOND_MARGIN_A
        )
        return cls(
            bonds,
            low - BOND_MARGIN_A,
            high + BOND_MARGIN_A,
            means,
            breaking,
            apart,
            nearest,
        )

    def unusual(self, frames: Positions) -> dict[str, Mask]:
        """Return which frames break which limit; what is not finite breaks it."""
        lengths = distances(frames, self.bonds)
        inside = (lengths >= self.shortest) & (lengths <= self.longest)
        beyond = distances(frames, self.apart) >= self.nearest
        return {
            "bond_length": np.any(~inside, axis=1),
            "new_bond": np.any(~beyond, axis=1),
        }

    def blow_up(self, frame: Float[np.ndarray, "atom 3"]) -> str | None:
        """Return what has come apart in a structure, or None."""
        return broken_bond(frame, self.bonds, self.means, self.breaking)


def spurious_frames(
    frames: Positions,
    energies: Float[np.ndarray, " frame"],
    *,
    limits: GeometryLimits,
    reference_energies: Float[np.ndarray, " reference"] | None,
) -> dict[str, Mask]:
    """Return which frames are spurious, "any" of them and by reason.

    Args:
        frames: positions in Å.
        energies: of these frames, on the scale of the reference, eV.
        limits: of the geometry.
        reference_energies: eV; None leaves energies out.
    """
    found = limits.unusual(frames)
    if reference_energies is not None:
        low, high = energy_window(reference_energies)
        found["energy_too_low"] = ~(energies >= low)
        found["energy_too_high"] = ~(energies <= high)
    found["any"] = np.any(list(found.values()), axis=0)
    return found


ENERGY = "energy"
ENERGY_OF_MODEL = "energy, by the model"
N_SEGMENTS = 4
"""Parts that one trajectory is cut into, to see whether they agree like chains."""


@dataclass(frozen=True)
class SampleFrames:
    """What is compared with a reference: frames of a model, in chains."""

    positions: Float[np.ndarray, "chain frame atom 3"]
    """Å."""
    energies: Float[np.ndarray, "chain frame"] | None
    """eV, on the scale of the reference."""
    counts: Bool[np.ndarray, "chain frame"]
    """Which frames count."""
    whole: Bool[np.ndarray, " chain"]
    """Which chains never started again."""

    @classmethod
    def of_chains(cls, chains: SampledChains, *, offset: float) -> "SampleFrames":
        """Return the frames of a model, energies lowered by an offset in eV."""
        return cls(
            chains.positions, chains.energies - offset, chains.counts, chains.survivors
        )

    @classmethod
    def of_reference(cls, frames: ReferenceFrames) -> "SampleFrames":
        """Return frames of one trajectory, cut into parts that act as chains."""
        n = len(frames) // N_SEGMENTS
        positions = frames.positions[: n * N_SEGMENTS]
        energies = (
            None if frames.energies is None else frames.energies[: n * N_SEGMENTS]
        )
        return cls(
            positions.reshape(N_SEGMENTS, n, *positions.shape[1:]),
            None if energies is None else energies.reshape(N_SEGMENTS, n),
            np.ones((N_SEGMENTS, n), dtype=bool),
            np.ones(N_SEGMENTS, dtype=bool),
        )

    @property
    def groups(self) -> Int[np.ndarray, " frame"]:
        """Return the group of every frame that counts: some chains, or parts of one.

        Chains next to each other stay together: a difference between those that
        started typically and those that did not is a difference between groups.
        """
        n_chains, n_frames = self.counts.shape
        chain, time = np.meshgrid(
            np.arange(n_chains), np.arange(n_frames), indexing="ij"
        )
        order = chain * n_frames + time
        places = order[self.counts]
        found = places * N_GROUPS // (n_chains * n_frames)
        return np.unique(found, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Convergence:
    """R-hat and effective sample size of one monitored quantity."""

    name: str
    r_hat: float
    effective_size: float
    n_values: int


@dataclass(frozen=True)
class Analysis:
    """Everything that was measured."""

    comparisons: tuple[Comparison, ...]
    reference_convergence: tuple[Convergence, ...]
    sample_convergence: tuple[Convergence, ...]
    n_spurious: dict[str, int]
    """Frames of the sample by reason; "any" of them."""
    spurious_fraction: float
    """Share of the frames that are outside of what the reference shows."""
    spurious_error: float
    """Its standard error, from the groups of chains."""
    n_frames: int
    """Frames of the sample that count."""
    n_reference: int
    """Frames of the reference."""


def analyse(
    reference: ReferenceFrames,
    sample: SampleFrames,
    *,
    molecule: MoleculeTopology,
    model_on_reference: Float[np.ndarray, " evaluated"] | None = None,
    report: Report | None = None,
) -> Analysis:
    """Return distances, convergence and spurious frames of a sample.

    Args:
        reference: frames in the order of time.
        sample: frames to judge.
        molecule: its bonds and torsions.
        model_on_reference: energies by the model on (some) frames of the reference, in
            the order of time and on the scale of the reference.
        report: called after every observable.
    """
    if not sample.counts.any():
        return _empty(reference, molecule)
    positions = sample.positions[sample.counts].astype(np.float64)
    energies = None if sample.energies is None else sample.energies[sample.counts]
    observables = list(
        _energy_observables(reference.energies, model_on_reference, energies)
    )
    observables += geometric_observables(molecule, reference.positions, positions)
    comparisons = []
    for done, observable in enumerate(observables, start=1):
        comparisons.append(
            compare(
                observable,
                reference_groups=time_blocks(len(observable.reference)),
                sample_groups=sample.groups,
                temperature_K=reference.known_temperature,
            )
        )
        if report is not None:
            report(ProgressEvent(done, len(observables), "distributions"))
    window = (
        reference.energies if reference.energies is not None else model_on_reference
    )
    spurious = spurious_frames(
        positions,
        np.zeros(len(positions)) if energies is None else energies,
        limits=GeometryLimits.of(molecule.graph, reference.positions),
        reference_energies=None if energies is None else window,
    )
    by_group = np.bincount(sample.groups, spurious["any"]) / np.bincount(sample.groups)
    return Analysis(
        comparisons=tuple(comparisons),
        reference_convergence=reference_convergence(reference, molecule),
        sample_convergence=_sample_convergence(sample, molecule),
        n_spurious={name: int(frames.sum()) for name, frames in spurious.items()},
        spurious_fraction=float(spurious["any"].mean()),
        spurious_error=float(np.std(by_group) / np.sqrt(len(by_group) - 1)),
        n_frames=len(positions),
        n_reference=len(reference),
    )


def _empty(reference: ReferenceFrames, molecule: MoleculeTopology) -> Analysis:
    """Return the analysis of a sample without a frame that counts."""
    return Analysis(
        comparisons=(),
        reference_convergence=reference_convergence(reference, molecule),
        sample_convergence=(),
        n_spurious={"any": 0},
        spurious_fraction=float("nan"),
        spurious_error=float("nan"),
        n_frames=0,
        n_reference=len(reference),
    )


def reference_convergence(
    reference: ReferenceFrames, molecule: MoleculeTopology
) -> tuple[Convergence, ...]:
    """Return how well the reference itself is sampled: its quarters as chains."""
    return _sample_convergence(SampleFrames.of_reference(reference), molecule)


def _energy_observables(
    by_reference: Float[np.ndarray, " frame"] | None,
    by_model: Float[np.ndarray, " evaluated"] | None,
    of_sample: Float[np.ndarray, " sample"] | None,
) -> Iterator[Observable]:
    for name, energies in ((ENERGY, by_reference), (ENERGY_OF_MODEL, by_model)):
        if energies is not None and of_sample is not None:
            yield Observable(name, "energy", energies[:, None], of_sample[:, None])


def _sample_convergence(
    sample: SampleFrames, molecule: MoleculeTopology
) -> tuple[Convergence, ...]:
    """Return R-hat and effective size over the chains that never started again."""
    inside = sample.counts & sample.whole[:, None]
    n_chains, n_frames = int(sample.whole.sum()), int(inside.sum(axis=1).max(initial=0))
    series = monitors(molecule, sample.positions[inside].astype(np.float64))
    if sample.energies is not None:
        series = {ENERGY: sample.energies[inside], **series}
    return tuple(
        Convergence(
            name,
            _measure(split_r_hat, values.reshape(n_chains, n_frames)),
            _measure(effective_sample_size, values.reshape(n_chains, n_frames)),
            values.size,
        )
        for name, values in series.items()
    )


def _measure(
    measure: Callable[[Float[np.ndarray, "chain draw"]], float],
    chains: Float[np.ndarray, "chain draw"],
) -> float:
    """Return a measure of chains, NaN where there are none."""
    return measure(chains) if chains.size else float("nan")
