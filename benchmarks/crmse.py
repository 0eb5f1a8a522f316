"""Train students of MD17 with and without CRMSE, and check how they sample.

    python benchmarks/crmse.py ethanol 50 --seeds 1 2 3

Every seed draws its own frames and weights. Three students each: energies and forces
(configs/md17_*.yaml), CRMSE from there (configs/crmse_*.yaml), and the control, which
goes on with energies and forces for about the time that CRMSE takes. Each is checked by
16 chains of 20,000 steps. Results are kept in a folder, where a stopped run goes on;
what is there is not made again.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.md17 import read_run, table
from crack_md.api.inputs import load_potential
from crack_md.api.runs import check_sampling
from crack_md.data.prepare.rmd17 import prepare_rmd17
from crack_md.errors import CrackError, DataError
from crack_md.progress import show_events
from crack_md.training.config import load_config
from crack_md.training.loop.train import train
from crack_md.workflows.sampling.reference import read_reference

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STEPS = {
    ("ethanol", 10): 1000,
    ("ethanol", 20): 2000,
    ("ethanol", 948): 4000,
    ("aspirin", 200): 2500,
    ("aspirin", 947): 4000,
}
"""Of the first training, where they are not those of the recipe."""
CONTROL_STEPS = 3000
"""Of training without chains, which take as long as 600 with them."""
ARMS = ("plain", "crmse", "control")
URL = "https://doi.org/10.6084/m9.figshare.12672038"


def find_rmd17(given: Path | None, molecule: str) -> Path:
    """Return the folder with the frames of a molecule.

    Raises:
        DataError: there is none.
    """
    shared = Path(os.environ.get("CRACK_MD_REFERENCES", "../shared")) / "data" / "rmd17"
    tried = [given] if given else [Path("rmd17"), shared]
    for folder in tried:
        if list(folder.glob(f"rmd17_{molecule}*.npz")):
            return folder
    raise DataError(
        f"no rmd17_{molecule}*.npz in {' or '.join(map(str, tried))}; download rMD17 "
        f"from {URL}, and put rmd17_{molecule}.npz with its splits into rmd17/, or "
        "name its folder with --rmd17"
    )


def overrides(
    arm: str, molecule: str, frames: int, seed: int, *, data: Path, folder: Path
) -> tuple[Path, list[str]]:
    """Return the recipe of a student, and what is set in it."""
    start = folder / f"{molecule}_{frames}_{seed}"
    recipe = "crmse" if arm == "crmse" else "md17"
    changes = [
        f"data.path={data}",
        f"data.max_frames={frames}",
        f"run.seed={seed}",
        f"run.folder={start if arm == 'plain' else Path(f'{start}_{arm}')}",
    ]
    if arm == "plain" and (molecule, frames) in STEPS:
        changes.append(f"run.max_steps={STEPS[molecule, frames]}")
    if arm != "plain":
        changes.append(f"student.init_from={start / 'student.pt'}")
    if arm == "control":
        changes += [
            f"run.max_steps={CONTROL_STEPS}",
            "optimizer.lr=5e-4",
            "optimizer.warmup_steps=20",
            "optimizer.ema_decay=0.99",
        ]
    return CONFIGS / f"{recipe}_{molecule}.yaml", changes


def run(
    arms: Sequence[str],
    molecule: str,
    frames: int,
    seed: int,
    *,
    rmd17: Path,
    folder: Path,
) -> list[Path]:
    """Return the folders of finished runs: trained students with their checks."""
    data = folder / f"{molecule}.aselmdb"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        prepare_rmd17([rmd17], data, labels="old", molecule=molecule)
    reference = read_reference(rmd17, molecule=molecule)
    done = []
    for arm in arms:
        recipe, changes = overrides(
            arm, molecule, frames, seed, data=data, folder=folder
        )
        config = load_config(recipe, changes)
        out = config.run.folder
        if not (out / "student.pt").exists():
            train(config)
        if not (out / "sampling" / "sampling.json").exists():
            calculator, info = load_potential(str(out / "student.pt"), device="cpu")
            with show_events() as report:
                check_sampling(
                    reference,
                    calculator,
                    out=out / "sampling",
                    model=info,
                    report=report,
                    temperature_K=reference.known_temperature,
                    steps=20_000,
                )
        done.append(out)
    return done


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("molecule", choices=("ethanol", "aspirin"))
    parser.add_argument("frames", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rmd17", type=Path, help="folder with rMD17's files")
    parser.add_argument("--folder", type=Path, default=Path("runs/md17"))
    options = parser.parse_args(arguments)
    molecule, frames = options.molecule, options.frames
    try:
        rmd17 = find_rmd17(options.rmd17, molecule)
        folders = [
            folder
            for seed in options.seeds
            for folder in run(
                options.arms,
                molecule,
                frames,
                seed,
                rmd17=rmd17,
                folder=options.folder,
            )
        ]
        data = options.folder / f"{molecule}.aselmdb"
        print(table([read_run(one, data) for one in folders]))
    except CrackError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
