"""Files that vanish, disks that fill, runs that were killed, two at once."""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from crack_md.errors import DataError
from crack_md.files import claim_folder
from crack_md.workflows.md.audit import AuditSettings, run_audit
from crack_md.workflows.md.output import State, read_state, write_state
from crack_md.workflows.md.run import run_dynamics
from crack_md.workflows.md.settings import Format, MDSettings
from tests.workflows.harmonic import Harmonic, NoForces

SITES = 6.0 * np.arange(6)[:, None] * np.ones(3)


def settings(steps: int = 60, format: Format = "extxyz") -> MDSettings:
    return MDSettings(
        steps=steps,
        log_every=5,
        frames_every=10,
        restart_every=20,
        format=format,
        stop_at_broken_bonds=False,
        seed=1,
    )


def springs() -> Harmonic:
    return Harmonic(SITES, 1.0)


class Meddling(Harmonic):
    """Does something to the world at one of its calls."""

    def __init__(self, call: int, act: Callable[[], object]) -> None:
        super().__init__(SITES, 1.0)
        self.left, self.act = call, act

    def calculate(self, *args: object, **kwargs: object) -> None:
        super().calculate(*args, **kwargs)  # type: ignore[arg-type]
        self.left -= 1
        if self.left == 0:
            self.act()


@pytest.mark.parametrize("call", [15, 35, 58], ids=["early", "late", "at the end"])
@pytest.mark.parametrize(
    "name", ["thermo.csv", "trajectory.extxyz", "trajectory.traj", "restart.npz", ""]
)
def test_output_removed_in_mid_run_is_an_error(name: str, call: int, tmp_path: Path):
    out = tmp_path / "out"
    remove = (out / name).unlink if name else lambda: shutil.rmtree(out)
    format: Format = "traj" if name.endswith("traj") else "extxyz"
    with pytest.raises(DataError, match=name or "out"):
        run_dynamics(
            Atoms("Cu6", SITES),
            Meddling(call, remove),
            settings=settings(format=format),
            folder=out,
        )
    assert not (out / "summary.json").exists()


def test_output_changed_by_others_is_an_error(tmp_path: Path):
    def write() -> None:
        with (tmp_path / "thermo.csv").open("a") as file:
            file.write("7,7,7\n")

    with pytest.raises(DataError, match=r"thermo\.csv' was changed while"):
        run_dynamics(
            Atoms("Cu6", SITES),
            Meddling(30, write),
            settings=settings(),
            folder=tmp_path,
        )


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Let writes beyond a size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("format", ["extxyz", "traj"])
@pytest.mark.parametrize("size", [100, 1500, 4200])
def test_full_disk_ends_in_one_line_and_loses_nothing(
    size: int, format: Format, tmp_path: Path
):
    """Wherever it strikes, the same command then ends with the same bits."""
    atoms, chosen = Atoms("Cu6", SITES), settings(format=format)
    with files_no_longer_than(size), pytest.raises(DataError, match="cannot write"):
        run_dynamics(atoms, springs(), settings=chosen, folder=tmp_path / "full")
    run_dynamics(atoms, springs(), settings=chosen, folder=tmp_path / "full")
    run_dynamics(atoms, springs(), settings=chosen, folder=tmp_path / "whole")
    for name in ("thermo.csv", f"trajectory.{format}", "restart.npz", "final.extxyz"):
        full, whole = (tmp_path / part / name for part in ("full", "whole"))
        if name.endswith("traj"):  # times of writing are in it
            assert len(full.read_bytes()) == len(whole.read_bytes())
            continue
        assert full.read_bytes() == whole.read_bytes(), name
    assert not list((tmp_path / "full").glob("*.tmp"))


def state(**changes: object) -> State:
    fields = {
        "step": 3,
        "positions": np.ones((2, 3)),
        "momenta": np.zeros((2, 3)),
        "cell": np.eye(3),
        "rng_state": dict(np.random.default_rng(0).bit_generator.state),
        "memory": {"heat": 0.5},
        "marks": {"thermo": 10, "frames": 1},
    }
    return State(**{**fields, **changes})  # type: ignore[arg-type]


def test_damaged_restart_files_are_one_line(tmp_path: Path):
    """Cut anywhere, or with any byte changed: read as they were, or refused."""
    path = tmp_path / "restart.npz"
    write_state(path, state())
    good, rng = path.read_bytes(), np.random.default_rng(0)
    for size in range(0, len(good), 37):
        path.write_bytes(good[:size])
        with pytest.raises(DataError, match="it is damaged"):
            read_state(path, n_atoms=2)
    for place in rng.integers(0, len(good), 150):
        broken = bytearray(good)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        try:
            found = read_state(path, n_atoms=2)
        except DataError:
            continue
        assert found is not None
        assert found.step == 3
        assert np.array_equal(found.positions, np.ones((2, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.ones((3, 3))}, r"positions are float64 of shape \(3, 3\)"),
        ({"momenta": np.full((2, 3), np.nan)}, "momenta are not finite"),
        ({"cell": np.eye(2)}, "cell are"),
        ({"step": -1}, "step is -1"),
        ({"rng_state": {"bit_generator": "MT19937"}}, "it is damaged"),
        ({"memory": {"heat": "much"}}, "could not convert"),
    ],
)
def test_restart_files_of_other_runs_are_refused(
    changes: dict[str, object], message: str, tmp_path: Path
):
    write_state(tmp_path / "restart.npz", state(**changes))
    with pytest.raises(DataError, match=message):
        read_state(tmp_path / "restart.npz", n_atoms=2)


def test_what_a_killed_run_left_half_written_goes(tmp_path: Path):
    for name in (".restart.npz.4711.tmp", ".trajectory.traj.12.tmp", ".mine.tmp"):
        (tmp_path / name).write_bytes(b"half")
    run_dynamics(Atoms("Cu6", SITES), NoForces(), settings=settings(2), folder=tmp_path)
    hidden = {path.name for path in tmp_path.glob(".*")}
    assert hidden == {".lock", ".mine.tmp"}


def test_one_audit_at_a_time(tmp_path: Path):
    with claim_folder(tmp_path), pytest.raises(DataError, match="another run"):
        run_audit(
            Atoms("Cu6", SITES), springs(), settings=AuditSettings(), folder=tmp_path
        )
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}
