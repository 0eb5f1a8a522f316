"""Runs chains from their starts and records them in chains.npz, to go on from.

The second half has its torsions turned by random angles, all of the circle alike, so
that chains must find back to the same distribution from other wells. Turned structures
with atoms nearer than the reference ever brings them are drawn again. Molecules without
torsions start from the frames of highest energy instead.
"""

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator
from jaxtyping import Int

from crack_md.data.torsions import TorsionTurner
from crack_md.errors import DataError
from crack_md.files import differences, write_atomically
from crack_md.workflows.sampling.analysis import GeometryLimits
from crack_md.workflows.sampling.chains import (
    ChainReplicas,
    RestartFrames,
    SampledChains,
    SamplingSettings,
    Structures,
)
from crack_md.workflows.sampling.molecule import MoleculeTopology
from crack_md.workflows.sampling.reference import ReferenceFrames


def starting_positions(
    reference: ReferenceFrames, molecule: MoleculeTopology, *, n_chains: int, seed: int
) -> Structures:
    """Return the first positions of all chains: typical ones, then spread ones."""
    rng = np.random.default_rng(seed)
    n_typical = n_chains - n_chains // 2
    enough = len(reference) >= n_chains
    chosen = rng.choice(len(reference), n_chains, replace=not enough)
    starts = reference.positions[chosen]
    if not molecule.torsions:
        starts[n_typical:] = _of_high_energy(reference, n_chains - n_typical, rng)
        return starts
    turn = TorsionTurner(
        molecule.graph, molecule.torsions, reference.numbers, reference.positions
    )
    for place in range(n_typical, n_chains):
        starts[place] = turn(starts[place], rng)
    return starts


def _of_high_energy(
    reference: ReferenceFrames, count: int, rng: np.random.Generator
) -> Structures:
    if reference.energies is None:
        return reference.positions[rng.choice(len(reference), count)]
    highest = np.argsort(reference.energies)[-max(count, len(reference) // 20) :]
    chosen = rng.choice(highest, count, replace=len(highest) < count)
    return reference.positions[chosen]


FORMAT_VERSION = 1
ENGINE = "ReplicaDynamics"
"""What chains.npz calls the engine, so that chains of earlier versions go on."""
HOPELESS = 10
"""Blow-ups per chain after which no more time is spent."""
STATE = "state_"
RECORDED = ("positions", "energies", "temperatures", "ages")


def run_chains(
    numbers: Int[np.ndarray, " atom"],
    starts: Structures,
    calculator: BaseCalculator,
    *,
    settings: SamplingSettings,
    limits: GeometryLimits,
    restart_frames: RestartFrames,
    path: Path,
    provenance: Mapping[str, Any],
    save_every_s: float = 30.0,
    report: Callable[[int], None] | None = None,
) -> SampledChains:
    """Return chains of the model, from their starts or from where a file ends.

    They end early where chains do nothing but blow up.

    Args:
        numbers: atomic numbers.
        starts: first positions.
        calculator: of the model.
        settings: number, length and motion of the chains.
        limits: a chain with a bond far off them has blown up.
        restart_frames: what it starts again from.
        path: `chains.npz`, written every now and then and at the end.
        provenance: what else decides the numbers: model, reference.
        save_every_s: seconds between writes; a large file is written less often.
        report: called with the number of steps done.

    Raises:
        DataError: the file is of other chains, or cannot be written.
    """
    dynamics = ChainReplicas(
        numbers, starts, calculator, settings.langevin(), restart_frames
    )
    conditions = {**settings.conditions(), **provenance, "engine": ENGINE}
    record = _Record(path, json.loads(json.dumps(conditions)), save_every_s)
    record.load(dynamics)
    try:
        most = HOPELESS * settings.n_chains
        while dynamics.step_count < settings.steps and len(dynamics.blow_ups) < most:
            dynamics.advance(settings.record_every)
            found = {
                chain: reason
                for chain, frame in enumerate(dynamics.positions)
                if (reason := limits.blow_up(frame)) is not None
            }
            if found:
                dynamics.restart(found)
            record.add(dynamics)
            if report is not None:
                report(dynamics.step_count)
    except KeyboardInterrupt:
        record.save(dynamics)
        raise
    record.save(dynamics)
    return record.chains(dynamics, settings)


@dataclass
class _Record:
    """What has been recorded, in memory and in its file."""

    path: Path
    conditions: dict[str, Any]
    save_every_s: float
    frames: dict[str, list[np.ndarray]] = field(
        default_factory=lambda: {name: [] for name in RECORDED}
    )
    n_saved: int = 0
    saved_at: float = field(default_factory=time.monotonic)
    took_s: float = 0.0

    def add(self, dynamics: ChainReplicas) -> None:
        """Record all chains as they are now, and save if it is time."""
        for name in RECORDED:
            values = np.array(getattr(dynamics, name))
            kind = np.float32 if name == "positions" else values.dtype
            self.frames[name].append(values.astype(kind))
        pause = max(self.save_every_s, 20.0 * self.took_s)
        if time.monotonic() - self.saved_at > pause:
            self.save(dynamics)

    def save(self, dynamics: ChainReplicas) -> None:
        """Write everything that is known, if there is news."""
        if len(self.frames["ages"]) == self.n_saved:
            return
        start = time.monotonic()
        arrays: dict[str, Any] = {
            "format_version": np.array(FORMAT_VERSION),
            "conditions": np.array(json.dumps(self.conditions)),
        }
        arrays |= {name: np.stack(values) for name, values in self.frames.items()}
        arrays |= {STATE + name: v for name, v in dynamics.state_dict().items()}
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_atomically(self.path, content.getvalue())
        self.n_saved, self.saved_at = len(self.frames["ages"]), time.monotonic()
        self.took_s = self.saved_at - start

    def load(self, dynamics: ChainReplicas) -> None:
        """Go on with what the file holds, if there is one.

        Raises:
            DataError: it is damaged, or of other chains.
        """
        if not self.path.exists():
            return
        try:
            content = io.BytesIO(self.path.read_bytes())
            with np.load(content, allow_pickle=False) as stored:
                version = int(stored["format_version"])
                found = json.loads(str(stored["conditions"]))
                frames = {name: list(stored[name]) for name in RECORDED}
                state = {
                    name.removeprefix(STATE): stored[name]
                    for name in stored.files
                    if name.startswith(STATE)
                }
        except Exception as error:  # any byte of the file may be wrong
            raise DataError(
                f"cannot read '{self.path}' ({type(error).__name__}); it is damaged: "
                "remove it, or give another --out"
            ) from error
        if version != FORMAT_VERSION or found != self.conditions:
            raise DataError(self._conflict(found))
        dynamics.load_state_dict(state)
        self.frames, self.n_saved = frames, len(frames["ages"])

    def chains(
        self, dynamics: ChainReplicas, settings: SamplingSettings
    ) -> SampledChains:
        """Return the frames up to the last step that is asked for."""
        n_frames = settings.steps // settings.record_every
        arrays = {
            name: np.swapaxes(np.stack(values[:n_frames]), 0, 1)
            for name, values in self.frames.items()
        }
        events = (e for e in dynamics.blow_ups if e.step <= settings.steps)
        return SampledChains(settings, **arrays, blow_ups=tuple(events))

    def _conflict(self, found: Mapping[str, Any]) -> str:
        changed = differences(found, self.conditions)
        return (
            f"'{self.path}' holds other chains: {changed or 'format'}; "
            "give another --out, or remove the file"
        )
