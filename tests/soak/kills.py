"""Commands that are killed at any moment and run again; results must not change."""

import hashlib
import json
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import torch
import yaml
from ase.build import bulk

from benchmarks.screen_kills import write_slabs
from crack_md.data import read_structures
from crack_md.files import read_json, write_json
from tests.soak.children import in_child, run_command
from tests.soak.records import Record
from tests.training.on_policy.loops import loop_tree, write_data

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_KILLS = 4
"""Of one output, before it may be finished."""
LONGEST = 600.0
"""Seconds after which a command hangs."""


@dataclass(frozen=True)
class Command:
    """A command that is killed and run again."""

    arguments: Callable[[Path], tuple[str | Path | float, ...]]
    """What to run for one folder of output."""
    result: Callable[[Path], Any]
    """What must be equal at the end."""


def run(folder: Path, kills: float) -> Record:
    """Return for every command how often it was killed and what was not equal."""
    inputs = folder / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    made = in_child(lambda: write_inputs(inputs), folder / "log", seconds=LONGEST)
    if made.code:
        raise SystemExit(made.text)
    found = {}
    for name, command in commands(inputs).items():
        path = folder / f"{name}.json"
        if not path.exists():
            write_json(path, kill(command, folder / name, int(kills)))
        found[name] = read_json(path)
    return {"commands": found}


def passes(found: Record) -> bool:
    """Return whether every killed run ended with the result of an unkilled one."""
    return not any(one["unequal"] for one in found["commands"].values())


def kill(command: Command, folder: Path, kills: int, *, seed: int = 0) -> Record:
    """Kill a command so often, and compare with a run that nothing disturbed."""
    draw, log = random.Random(seed), folder / "log"
    calm, done, rounds, unequal = folder / "calm", 0, 0, []
    calm.mkdir(parents=True, exist_ok=True)
    start = in_child(run_command(*command.arguments(calm)), log, seconds=LONGEST)
    if start.code:
        raise SystemExit(f"the command fails by itself: {start.text}")
    expected = result_of(command, calm, log)
    while done < kills and rounds < 4 * kills:  # a run may be done before its kill
        out = folder / f"round-{rounds}"
        out.mkdir(exist_ok=True)
        history, rounds = [], rounds + 1
        while True:
            is_last = len(history) >= min(MOST_KILLS, kills - done)
            moment = LONGEST if is_last else draw.uniform(0, start.seconds)
            ended = in_child(
                run_command(*command.arguments(out)),
                log,
                seconds=moment,
                end_with=draw.choice(SIGNALS),
            )
            if ended.code == 0 or is_last:
                break
            history.append([round(moment, 3), ended.code])
        done += len(history)
        if ended.code or result_of(command, out, log) != expected:
            unequal.append(
                {"round": rounds - 1, "kills": history, "end": ended.text[-500:]}
            )
        else:
            shutil.rmtree(out)
    return {
        "kills": done, "rounds": rounds, "seconds": round(start.seconds, 2),
        "unequal": unequal,
    }  # fmt: skip


def result_of(command: Command, out: Path, log: Path) -> Any:
    """Return what a run left: its result, and the names of all its files."""
    target = out / "result.json"

    def read() -> None:
        names = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
        write_json(target, {"files": names, "result": command.result(out)})

    ended = in_child(read, log, seconds=LONGEST)
    if ended.code:
        return ended.text
    content = read_json(target)
    target.unlink()
    return content


def commands(inputs: Path) -> dict[str, Command]:
    """Return the commands by name."""
    slabs = inputs / "slabs.extxyz"
    recipe, loop = inputs / "train.yaml", inputs / "loop.yaml"
    screen = ("--model", "emt", "--gas-reference", "H2O=2.2,H2=2.5", "--fmax", 0.1)
    return {
        "screen": Command(
            lambda out: ("screen", slabs, *screen, "--out", out / "s"),
            lambda out: [digest(out / "s" / f"{n}.csv") for n in ("results", "sites")],
        ),
        "augment": Command(
            lambda out: (
                "augment", inputs / "augment.yaml", "--out", out / "frames.aselmdb",
                "--teacher", "emt", "--seed", 3,
            ),
            lambda out: frames_of(out / "frames.aselmdb"),
        ),
        "label": Command(
            lambda out: (
                "label", inputs / "cells.extxyz", "--out", out / "train.aselmdb",
                "--teacher", "emt",
            ),
            lambda out: frames_of(out / "train.aselmdb"),
        ),
        "train": Command(
            lambda out: ("train", recipe, "--set", f"run.folder={out}/run"),
            lambda out: [weights_of(out / "run"), metrics_of(out / "run")],
        ),
        "md": Command(
            lambda out: (
                "md", inputs / "copper.extxyz", "--model", "emt", "--steps", 200,
                "--temperature", 500, "--restart-every", 10, "--out", out / "md",
            ),
            lambda out: [
                digest(out / "md" / name)
                for name in ("thermo.csv", "trajectory.extxyz", "final.extxyz")
            ],
        ),
        "distil": Command(
            lambda out: ("distil", loop, "--set", f"folder={out}/run"),
            lambda out: weights_of(out / "run"),
        ),
    }  # fmt: skip


def write_frames(folder: Path) -> None:
    """Write what is labelled."""
    ase.io.write(folder / "cells.extxyz", [rattled(number) for number in range(200)])


def write_inputs(folder: Path) -> None:
    """Write what the commands start from."""
    write_frames(folder)
    write_slabs(folder / "slabs.extxyz", 2)
    ase.io.write(folder / "copper.extxyz", bulk("Cu", cubic=True) * (2, 2, 2))
    recipe = {
        "generate": {"elements": ["Ag", "Cu"], "counts": {"fcc111": 4, "bulk": 6}},
        "variants": {"rattle": {"frames": 3}, "relax": {"steps": 5}},
    }
    (folder / "augment.yaml").write_text(yaml.safe_dump(recipe))
    tree = loop_tree(write_data(folder), folder)
    tree["train"] = {"steps": 12, "later_steps": 8}
    (folder / "loop.yaml").write_text(yaml.safe_dump(tree))
    train = yaml.safe_load((folder / "student.yaml").read_text())
    train["data"] = {"path": str(folder / "data.aselmdb")}
    train["run"] |= {
        "max_steps": 24,
        "checkpoint_every": 2,
        "folder": str(folder / "run"),
    }
    del train["run"]["max_seconds"]
    (folder / "train.yaml").write_text(yaml.safe_dump(train))


def rattled(number: int) -> ase.Atoms:
    """Return a small cell of its own."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=number)
    return atoms


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def frames_of(path: Path) -> list[str]:
    """Return a SHA-256 of every structure, with its energy and forces."""
    found = []
    for atoms in read_structures(path):
        arrays = [atoms.numbers, atoms.positions, atoms.cell.array, *_labels(atoms)]
        text = b"".join(array.tobytes() for array in arrays)
        found.append(hashlib.sha256(text).hexdigest())
    return found


def _labels(atoms: ase.Atoms) -> list[Any]:
    if atoms.calc is None:
        return []
    return [torch.tensor(atoms.get_potential_energy()).numpy(), atoms.get_forces()]


def weights_of(folder: Path) -> str:
    """Return a SHA-256 of the student's weights."""
    content = torch.load(folder / "student.pt", weights_only=True)["state_dict"]
    text = b"".join(content[name].numpy().tobytes() for name in sorted(content))
    return hashlib.sha256(text).hexdigest()


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a training without what the clock decides."""
    rows = list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))
    rows = [row for row in rows if "structures_per_s" not in row]  # times alone
    return [{k: v for k, v in row.items() if not k.endswith("_s")} for row in rows]
