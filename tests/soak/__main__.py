"""Run the long forms of tests and write docs/reliability.md.

    python -m tests.soak                    all parts, hours
    python -m tests.soak --quick            all parts, minutes
    python -m tests.soak md neighbors       some parts
    python -m tests.soak page               the page, from the records that are there

Each part writes a record when it ends and is left out where its record is there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.soak import dynamics
from tests.soak.records import write_record


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where every part passes, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", default=["md"])
    parser.add_argument("--hours", type=float, default=1.0, help="of dynamics")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    options = parser.parse_args(arguments)
    ok = True
    for part in options.parts:
        if (options.out / f"{part}.json").exists():
            continue
        hours = 0.02 if options.quick else options.hours
        found = dynamics.run(options.out / part, hours=hours)
        write_record(options.out, part, found)
        ok &= dynamics.passes(found)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
