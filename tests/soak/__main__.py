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

from crack_md.files import read_json
from tests.soak import dynamics, fuzz, kills, neighbors
from tests.soak.page import write_page
from tests.soak.records import write_record

MODULES = {"md": dynamics, "neighbors": neighbors, "fuzz": fuzz, "kills": kills}
SIZES = {"md": 1.0, "neighbors": 100_000, "fuzz": 2000, "kills": 15}
"""Hours of dynamics, random cells, damaged files, kills of each command."""
QUICK = {"md": 0.02, "neighbors": 1000, "fuzz": 100, "kills": 2}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where every part passes, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", help=", ".join([*MODULES, "page"]))
    parser.add_argument("--hours", type=float, help="of dynamics; 1 unless quick")
    parser.add_argument("--quick", action="store_true", help="minutes, not hours")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    options = parser.parse_args(arguments)
    sizes = dict(QUICK if options.quick else SIZES)
    sizes["md"] = options.hours or sizes["md"]
    if unknown := set(options.parts) - {*MODULES, "page"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    failed = []
    # a quick run says nothing about hours and leaves the page alone
    for part in options.parts or [*MODULES, *([] if options.quick else ["page"])]:
        if part == "page":
            write_page(options.out)
            continue
        module, path = MODULES[part], options.out / f"{part}.json"
        if not path.exists():
            write_record(options.out, part, module.run(options.out / part, sizes[part]))
        if not module.passes(read_json(path)):
            failed.append(part)
    print("failed: " + ", ".join(failed) if failed else "all parts pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
