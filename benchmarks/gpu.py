"""All figures of a GPU in one run.

    python benchmarks/gpu.py --out runs/gpu

Four parts, each with its own JSON file, and one Markdown file for all: whether compiled
code, other precisions and the GPU give the CPU's answer; the published student's size
from 46 to 20,000 atoms; the packaged student, alone and in batches; and molecular
dynamics by the protocol of UMA's benchmark. Peers take part where `make peers` has made
their environments.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contestant import Settings
from benchmarks.engines import Engine, engines
from benchmarks.results import write_json
from benchmarks.speed import measure
from benchmarks.speed_table import markdown
from benchmarks.work import Case, cases, dynamics

LARGEST_TINY = 40


@dataclass(frozen=True)
class Part:
    """One question, the engines it is put to, and the sizes."""

    title: str
    engines: tuple[str, ...]
    works: tuple[str, ...]
    atoms: tuple[int, ...]
    rounds: int = 5
    batch: int = 64

    def cases(self) -> list[Case]:
        """Return what is measured."""
        if self.works == ("md",):
            return dynamics(self.atoms)
        return cases(self.works, atoms=self.atoms, batch=self.batch, md_atoms=())


PARTS = {
    "agreement": Part(
        "Does everything say what the CPU says?",
        (
            "22M-cpu",
            "22M",
            "22M-compiled",
            "22M-tf32-compiled",
            "22M-bf16-compiled",
            "student-cpu",
            "student",
            "student-compiled",
        ),
        ("single",),
        (46,),
        rounds=1,
    ),
    "22M": Part(
        "The published student's size",
        (
            "22M",
            "22M-compiled",
            "22M-tf32-compiled",
            "22M-bf16-compiled",
            "fairchem-22M",
            "crack-original",
        ),
        ("single", "network"),
        (46, 81, 150, 1000, 5000, 20000),
    ),
    "student": Part(
        "The packaged student",
        (
            "student",
            "student-compiled",
            "student-direct",
            "student-direct-compiled",
            "nequix",
            "uma-s",
        ),
        ("single", "batch"),
        (46, 1000),
    ),
    "md": Part(
        "Molecular dynamics, 200 steps to warm up and the mean of 100",
        (
            "22M-compiled",
            "22M-bf16-compiled",
            "student",
            "student-compiled",
            "student-direct-compiled",
            "nequix",
            "uma-s",
        ),
        ("md",),
        (150, 1000),
    ),
}


def main(
    arguments: list[str] | None = None, *, known: Mapping[str, Engine] | None = None
) -> None:
    """Run the parts, and write what they find after each.

    Args:
        arguments: Of the command line.
        known: Engines to take in place of those of engines.py.
    """
    options = _options(arguments)
    settings = Settings(
        device=options.device,
        threads=options.threads,
        limit_s=options.limit_s,
        md_steps=3 if options.tiny else 100,
        md_warm_up=1 if options.tiny else 200,
        round_s=0.1 if options.tiny else 2.0,
        logs=options.out / "logs",
    )
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        found = engines(Path(folder)) if known is None else known
        for name in options.parts:
            part = _tiny(PARTS[name]) if options.tiny else PARTS[name]
            chosen = [found[one] for one in part.engines if one in found]
            path = options.out / f"{name}.json"
            part_settings = replace(settings, rounds=part.rounds)
            content = measure(chosen, part.cases(), part_settings, path)
            write_json(content, path)
            texts.append(f"## {part.title}\n\n{markdown(content)}\n")
            (options.out / "gpu.md").write_text("\n".join(texts), encoding="utf-8")
    print("\n" + "\n".join(texts))


def _tiny(part: Part) -> Part:
    return replace(
        part, atoms=tuple({min(n, LARGEST_TINY) for n in part.atoms}), rounds=1, batch=2
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--device", default="cuda")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--limit-s", type=float, default=120.0, help="for an engine and case")
    add("--out", type=Path, default=Path("runs/gpu"))
    add("--tiny", action="store_true", help="small sizes, to try it out")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("error: no GPU is available; --device cpu --tiny tries it out")
    return options


if __name__ == "__main__":
    main()
