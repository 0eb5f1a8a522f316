"""The checks before a release, on files as users get them.

    python -m tests.release                       with every Python 3.11 to 3.13 in PATH
    python -m tests.release --python /opt/python3.13/bin/python3

Wheel and source archive are built, each in turn installed alone into an empty
environment of every Python, with the newest dependencies and, on the oldest Python,
with the oldest that pyproject.toml allows. There `crack-md doctor`, a screening and a
step of training must end well outside this repository. Licences and a CycloneDX bill of
materials of the newest environment are written beside the archives. Exit code 1 where a
check fails.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MINORS = (11, 12, 13)
LARGEST_WHEEL_MB = 15.0
LARGEST_SDIST_MB = 20.0
FORBIDDEN_LICENCES = ("AGPL", "Affero", "GNU General Public", "GPL-2", "GPL-3", "GPLv")
"""Of what a plain install brings; the LGPL, which ASE has, is none of them."""


class Check(NamedTuple):
    """One line of the table."""

    name: str
    passed: bool
    note: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where every check passes, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", action="append", default=[], help="an interpreter")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.out, ignore_errors=True)
    checks = []
    for check in _checks(options.out, pythons(options.python)):
        print(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.note}")
        sys.stdout.flush()
        checks.append(check)
    failed = [check.name for check in checks if not check.passed]
    print(f"{len(checks) - len(failed)} of {len(checks)} checks passed")
    return 1 if failed else 0


def pythons(named: Sequence[str]) -> dict[int, str]:
    """Return a working interpreter for each minor version, those named first."""
    found: dict[int, str] = {}
    for program in (*named, *(f"python3.{minor}" for minor in MINORS)):
        code = "import sys; print(sys.version_info.minor)"
        done = _run([program, "-c", code], cwd=ROOT) if shutil.which(program) else None
        if done is not None and done.returncode == 0:
            found.setdefault(int(done.stdout), program)
    return {minor: found[minor] for minor in MINORS if minor in found}


def _checks(out: Path, found: dict[int, str]) -> Iterator[Check]:
    done = _run([sys.executable, "-m", "build", "--outdir", out, ROOT], cwd=ROOT)
    yield Check("build", done.returncode == 0, last_line(done))
    if done.returncode:
        return
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    for path, limit in ((wheel, LARGEST_WHEEL_MB), (sdist, LARGEST_SDIST_MB)):
        size = path.stat().st_size / 1e6
        yield Check(path.name, size <= limit, f"{size:.1f} MB, at most {limit:g} MB")
    for minor in MINORS:
        if minor not in found:
            yield Check(f"Python 3.{minor}", True, "not found here: not checked")
    newest = max(found)
    for minor, program in found.items():
        yield from _installed(program, f"3.{minor}, wheel", wheel)
    yield from _installed(found[newest], f"3.{newest}, source archive", sdist, out=out)
    oldest = min(found)
    yield from _installed(
        found[oldest],
        f"3.{oldest}, oldest dependencies",
        wheel,
        limits=oldest_allowed(),
    )


def oldest_allowed() -> list[str]:
    """Return the lower bounds of all core dependencies as constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(line) for line in project["dependencies"]]
    return [
        f"{one.name}=={bound.version}"
        for one in requirements
        for bound in one.specifier
        if bound.operator == ">="
    ]


def _installed(
    python: str,
    name: str,
    archive: Path,
    *,
    limits: Sequence[str] = (),
    out: Path | None = None,
) -> Iterator[Check]:
    """Yield what an empty environment with one archive does."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = home / "environment"
        (home / "limits.txt").write_text("\n".join(limits))
        _run([python, "-m", "venv", environment], cwd=home)
        inside = environment / "bin" / "python"
        pip = [inside, "-m", "pip", "install", "--quiet", "--no-compile"]
        done = _run([*pip, "-c", home / "limits.txt", archive], cwd=home)
        note = last_line(done) if done.returncode else _versions(inside, home)
        yield Check(f"{name}: install", done.returncode == 0, note)
        if done.returncode:
            return
        yield from _used(environment / "bin" / "crack-md", name, home)
        if out is not None:
            yield from _inventory(inside, out)


def _versions(python: Path, home: Path) -> str:
    """Return the versions that decide most, as installed."""
    done = _run([python, "-m", "pip", "list", "--format", "json"], cwd=home)
    found = {row["name"]: row["version"] for row in json.loads(done.stdout or "[]")}
    return ", ".join(
        f"{n} {found.get(n, 'missing')}" for n in ("torch", "numpy", "ase")
    )


def _used(command: Path, name: str, home: Path) -> Iterator[Check]:
    """Yield how commands end that use every core dependency."""
    done = _run([command, "doctor", "--json"], cwd=home)
    broken = [
        f"{one['name']}: {one['fault']}"
        for one in (json.loads(done.stdout)["findings"] if done.stdout else ())
        if one["fault"]
    ]
    note = "; ".join(broken) or (last_line(done) if done.returncode else "whole")
    yield Check(f"{name}: doctor", done.returncode == 0, note)
    slabs = ROOT / "examples" / "surfaces.db"
    some = ["--select", "id=1", "--max-sites", "1", "--out", home / "screening"]
    done = _run([command, "screen", slabs, *some], cwd=home)
    yield Check(f"{name}: screen", done.returncode == 0, last_line(done))
    frames = ROOT / "tests" / "data" / "tiny.extxyz"
    short = ["--set", "run.max_steps=1", "--set", f"data.path={frames}"]
    done = _run([command, "train", ROOT / "configs" / "tiny.yaml", *short], cwd=home)
    yield Check(f"{name}: train", done.returncode == 0, last_line(done))


def _inventory(python: Path, out: Path) -> Iterator[Check]:
    """Yield which licences a plain install brings; write them, and the materials."""
    here = Path(sys.executable).parent
    done = _run(
        [here / "pip-licenses", "--python", python, "--format", "json"], cwd=out
    )
    rows = json.loads(done.stdout) if done.returncode == 0 else []
    (out / "licences.json").write_text(json.dumps(rows, indent=2) + "\n")
    bad = [
        f"{row['Name']} ({row['License']})"
        for row in rows
        if any(word in row["License"] for word in FORBIDDEN_LICENCES)
        and "Lesser" not in row["License"]
        and "LGPL" not in row["License"]
    ]
    note = "not allowed: " + ", ".join(bad) if bad else f"{len(rows)} packages"
    yield Check("licences", bool(rows) and not bad, note or last_line(done))
    target = out / "sbom.cyclonedx.json"
    done = _run(
        [here / "cyclonedx-py", "environment", python, "--output-file", target], cwd=out
    )
    parts = json.loads(target.read_text())["components"] if target.is_file() else []
    yield Check("bill of materials", bool(parts), f"{len(parts)} components")


def _run(
    command: Sequence[str | Path], *, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Return how a command ended, without this repository on its path."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {name: os.environ[name] for name in os.environ if name not in hidden}
    variables["COLUMNS"] = "200"  # or a last line is the end of one
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command said last: of its errors where it failed."""
    text = done.stderr if done.returncode else done.stdout or done.stderr
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "ended without a word"


if __name__ == "__main__":
    sys.exit(main())
