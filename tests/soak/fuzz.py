"""Damaged and hostile files: one line for each, in bounded memory and time.

Every case has a number, from which its file is made again. It is read in a forked
process: by the readers, which may raise `CrackError` alone, or by a command, which must
end with an exit code of its own (1: a structure failed) and no traceback.
"""

import contextlib
import io
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
import yaml
from ase.build import bulk, fcc111
from ase.calculators.singlepoint import SinglePointCalculator

from crack_md.data import read_dataset, read_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import CrackError
from crack_md.models.checkpoint import load_model, save_model
from crack_md.structures import read_entries
from crack_md.training.config import load_config
from tests.factories import tiny_model
from tests.soak.children import Ended, in_child, run_command
from tests.soak.records import Record, sweep
from tests.training.factories import recipe

STRUCTURES = (".extxyz", ".traj", ".cif", ".vasp", ".db", ".json", ".aselmdb")
MODEL, RECIPE = ".pt", ".yaml"
MOST_SECONDS = 30.0
"""Of a processor; twenty times as many on a busy one's clock."""
MOST_GROWTH_MB = 500
COMMANDS = 10
"""Every so manieth case is read by a command."""
EXTREMES = (
    b"nan", b"inf", b"-1", b"0", b"1e999", b"99999999999999999999", b"1e-300", b"",
    b"\x00", b"[" * 50, b"Xx", b"\xff\xfe", b"-99999", b"2147483648",
)  # fmt: skip
NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")


def run(folder: Path, cases: float) -> Record:
    """Return how many files were tried and those that were not refused or read well."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = write_whole(folder / "whole")
    for kind in whole:  # what is imported now need not be in every process
        with contextlib.suppress(SystemExit, CrackError):
            reader_for(folder / "whole" / f"file{kind}")()
    return sweep(
        folder, int(cases), lambda begin, end: try_files(folder, whole, begin, end)
    )


def passes(found: Record) -> bool:
    """Return whether every file was read or refused in one line."""
    return not found["faults"]


def try_files(folder: Path, whole: dict[str, bytes], begin: int, end: int) -> Record:
    """Return what became of the files with these numbers."""
    counts, faults, growth, longest = Counter[str](), [], 0.0, 0.0
    for number in range(begin, end):
        draw = random.Random(number)
        kind = draw.choice([*STRUCTURES, MODEL, MODEL, RECIPE])
        path = folder / f"case{kind}"
        path.write_bytes(damage(kind, whole[kind], draw))
        by_command = number % COMMANDS == 0
        function = command_for(path) if by_command else reader_for(path)
        ended = in_child(function, folder / "log", seconds=20 * MOST_SECONDS)
        counts["fine" if ended.code == 0 else "refused"] += 1
        growth, longest = max(growth, ended.growth_MB), max(longest, ended.cpu_seconds)
        if fault := fault_of(ended):
            faults.append({"number": number, "kind": kind, "fault": fault})
            (folder / f"fault-{number}{kind}").write_bytes(path.read_bytes())
    return {
        "cases": end - begin,
        "read": counts["fine"],
        "refused": counts["refused"],
        "faults": faults,
        "growth_MB": [round(growth)],
        "longest_s": [round(longest, 1)],
    }


def fault_of(ended: Ended) -> str:
    """Return what is wrong with the end of a process; nothing where it is right."""
    if ended.cpu_seconds > MOST_SECONDS or ended.seconds > 20 * MOST_SECONDS:
        return "too slow"
    if ended.code < 0:
        return f"ended by signal {-ended.code}"
    if ended.code not in (0, 1, 2) or "Traceback (most recent" in ended.text:
        return ended.text[-300:]
    if ended.growth_MB > MOST_GROWTH_MB:
        return f"took {ended.growth_MB:.0f} MB"
    return ""


def reader_for(path: Path) -> Callable[[], object]:
    """Return a function that reads a file by all that may read it."""
    readers: dict[str, list[Callable[[Path], object]]] = {
        MODEL: [load_model],
        RECIPE: [load_config],
    }
    structures = [lambda p: list(read_structures(p)), read_dataset, read_entries]

    def read() -> None:
        refused = False
        for reader in readers.get(path.suffix, structures):
            try:
                reader(path)
            except CrackError as error:
                refused = True
                print(str(error)[:200])
        raise SystemExit(2 if refused else 0)

    return read


def command_for(path: Path) -> Callable[[], object]:
    """Return a function that reads a file by a command."""
    out = path.parent / "out"
    relax = ("relax", path, "--model", "emt", "--steps", 1, "--out", out)
    arguments = {MODEL: ("info", path), RECIPE: ("train", path)}
    return run_command(*arguments.get(path.suffix, relax))


def damage(kind: str, whole: bytes, draw: random.Random) -> bytes:
    """Return a file that is wrong somewhere."""
    if kind == MODEL and draw.random() < 0.7:
        return inside_model(whole, draw)
    if kind == RECIPE and draw.random() < 0.7:
        return inside_recipe(whole, draw)
    for _ in range(draw.choice([1, 1, 2, 5])):
        whole = draw.choice([flip, cut, repeat, replace, replace])(whole, draw)
    return whole


def flip(data: bytes, draw: random.Random) -> bytes:
    """Return data with one bit turned over."""
    place = draw.randrange(max(1, len(data)))
    changed = bytearray(data or b"\0")
    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(data: bytes, draw: random.Random) -> bytes:
    """Return the beginning of data."""
    return data[: draw.randrange(len(data) + 1)]


def repeat(data: bytes, draw: random.Random) -> bytes:
    """Return data with a part of it in another place once more."""
    begin, place = draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)
    return data[:place] + data[begin : begin + draw.randrange(1, 500)] + data[place:]


def replace(data: bytes, draw: random.Random) -> bytes:
    """Return data with one of its numbers replaced by an extreme."""
    if not (numbers := list(NUMBER.finditer(data))):
        return data
    found = draw.choice(numbers)
    return data[: found.start()] + draw.choice(EXTREMES) + data[found.end() :]


def inside_model(whole: bytes, draw: random.Random) -> bytes:
    """Return an archive, whole as such, with a changed member or a changed value."""
    if draw.random() < 0.5:
        content = torch.load(io.BytesIO(whole), weights_only=True)
        change_value(content, draw)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w") as new:
        names = old.namelist()
        changed = draw.choice(
            [*names, next(n for n in names if n.endswith("data.pkl"))]
        )
        for name in names:
            data = old.read(name)
            if name == changed:
                data = draw.choice([flip, flip, cut, repeat])(data, draw)
                data += bytes(draw.choice([0, 0, 0, 10**7]))
            pack = draw.choice([zipfile.ZIP_STORED] * 5 + [zipfile.ZIP_DEFLATED])
            new.writestr(name, data, compress_type=pack)
    return buffer.getvalue()


def inside_recipe(whole: bytes, draw: random.Random) -> bytes:
    """Return a recipe, whole as YAML, with a changed value."""
    content = yaml.safe_load(whole)
    change_value(content, draw)
    return yaml.safe_dump(content).encode()


def change_value(content: Any, draw: random.Random) -> None:
    """Replace one value somewhere in nested containers."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = draw.choice(keys)
    inner = content[key]
    if isinstance(inner, dict | list) and inner and draw.random() < 0.9:
        return change_value(inner, draw)
    with contextlib.suppress(TypeError):  # a tuple
        content[key] = draw.choice(VALUES)
    return None


VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 10**9, 10**30, 0.5, -1.0, 1e9, float("nan"), float("inf"), "",
    "x", "a" * 10_000, [], [1], [[[]]], {}, {"a": {}}, {1: 2},
)  # fmt: skip


def write_whole(folder: Path) -> dict[str, bytes]:
    """Return a good file of every kind."""
    folder.mkdir(exist_ok=True)
    slab = fcc111("Cu", (1, 1, 4), vacuum=8.0, periodic=True)
    slab.info = {"group": "copper", "energy_note": 1.5}
    slab.calc = SinglePointCalculator(slab, energy=-1.0, forces=np.ones((4, 3)))
    for kind in STRUCTURES:
        path = folder / f"file{kind}"
        path.unlink(missing_ok=True)
        if kind in (".db", ".aselmdb"):
            writer = RowWriter(path, job={})
            writer.append([slab, bulk_with_labels()] * 2, done=2)
            writer.finish({"format_version": 1})
        else:
            ase.io.write(path, slab)
    save_model(tiny_model(dtype=torch.float32, num_layers=1), folder / "file.pt")
    tree = json.loads(json.dumps(recipe(Path("missing.db"), folder / "run")))
    (folder / "file.yaml").write_text(yaml.safe_dump(tree))
    return {path.suffix: path.read_bytes() for path in folder.glob("file.*")}


def bulk_with_labels() -> ase.Atoms:
    """Return a cell of copper with energy and forces."""
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-2.0, forces=np.zeros((4, 3)))
    return atoms
