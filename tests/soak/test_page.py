"""The page of a soak, and the shortest form of its parts."""

import mmap
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.soak import dynamics, fuzz, kills
from tests.soak.__main__ import main
from tests.soak.children import in_child
from tests.soak.page import write_page
from tests.soak.records import write_record

KILLED = {"kills": 3, "rounds": 1, "seconds": 2.0, "unequal": []}
RECORDS: dict[str, dict[str, Any]] = {
    "md": {
        "atoms": 46,
        "hours": 1.02,
        "memory_MB": 435.8,
        "largest_MB": 436.0,
        "growth_MB": 0.4,
        "steps": 17520,
        "time_ps": 17.52,
        "temperature_K": 232.7,
        "drift_meV_per_atom_ps": -4.6e-7,
        "spread_meV_per_atom": 4e-4,
    },
    "neighbors": {"cases": 1000, "pairs": 70_000, "wrong": [], "seconds": 3.0},
    "fuzz": {
        "cases": 3,
        "read": 1,
        "refused": 1,
        "faults": [{"number": 7, "kind": ".cif", "fault": "too slow"}],
        "growth_MB": [11, 3],
        "longest_s": [2.0],
        "seconds": 3.0,
    },
    "kills": {"commands": {"train": KILLED, "md": KILLED}},
}


def test_the_page_says_what_held(tmp_path: Path) -> None:
    for part, found in RECORDS.items():
        write_record(tmp_path, part, found)
    write_page(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| +0.4 MB in 1.0 h, -4.6e-07 meV/atom/ps | held |" in text
    assert "| 0 of 2 results differ, after 6 kills | held |" in text
    assert "| 1 of 3 files end otherwise | **did not hold** |" in text
    assert "Faults: .cif 7." in text
    assert "$" not in text
    assert str(tmp_path) not in text


def test_parts_that_are_done_are_not_done_again(tmp_path: Path, capsys) -> None:
    for part, found in RECORDS.items():
        write_record(tmp_path, part, found)
    assert main(["--quick", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "failed: fuzz\n"
    with pytest.raises(SystemExit):
        main(["nothing", "--out", str(tmp_path)])


def take_memory() -> None:
    """Write to memory of the system itself: the C library may hold freed memory."""
    with mmap.mmap(-1, 300_000_000) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1


def test_children_die_alone(tmp_path: Path) -> None:
    ends = {
        "ends": (lambda: print("said"), 0),
        "fails": (lambda: 1 / 0, 1),
        "dies": (lambda: signal.raise_signal(signal.SIGUSR1), -signal.SIGUSR1),
        "hangs": (lambda: signal.pause(), -signal.SIGKILL),
    }
    found = {
        name: in_child(function, tmp_path / "log", seconds=1.0)
        for name, (function, _) in ends.items()
    }
    assert {name: end.code for name, end in found.items()} == {
        name: code for name, (_, code) in ends.items()
    }
    assert found["ends"].text == "said\n"
    assert "ZeroDivisionError" in found["fails"].text
    taken = in_child(take_memory, tmp_path / "log", seconds=60)
    assert 290 < taken.growth_MB < 480
    assert fuzz.fault_of(taken) == ""
    assert "ZeroDivisionError" in fuzz.fault_of(found["fails"])
    assert fuzz.fault_of(found["dies"]) == f"ended by signal {signal.SIGUSR1.value}"


def test_a_few_damaged_files_end_well(tmp_path: Path) -> None:
    found = fuzz.run(tmp_path, 8)
    assert fuzz.passes(found), found["faults"]
    assert found["read"] + found["refused"] == found["cases"] == 8


def test_a_killed_label_ends_as_an_unkilled_one(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    kills.write_frames(inputs)
    found = kills.kill(kills.commands(inputs)["label"], tmp_path / "label", 2)
    assert found["kills"] >= 2
    assert found["unequal"] == []


@pytest.mark.slow
def test_dynamics_keep_memory_and_energy(tmp_path: Path) -> None:
    found = dynamics.run(tmp_path, 0.002, warm_up=20)
    assert found["atoms"] == 46
    assert dynamics.passes(found)
