"""``crack-md domain``: stores statistics of the training data in a model file."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crack_md.cli.models import atomic_numbers
from crack_md.errors import ConfigError

if TYPE_CHECKING:
    from crack_md.models.feature_statistics import FeatureStatistics
    from crack_md.models.force_field import ForceField
    from crack_md.models.limits import Limits
    from crack_md.models.shortest_distances import ShortestDistances


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("domain")(domain)


def domain(
    model: Annotated[str, typer.Argument(help="A model file, or 'default'.")],
    structures: Annotated[
        Path | None,
        typer.Argument(
            help="Its training data: anything ASE reads, or a folder. Without them the "
            "model keeps the statistics it has."
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    limits: Annotated[
        Path | None,
        typer.Option(
            metavar="LIMITS.YAML",
            help="What the model may be asked for, as configs/limits_orr.yaml.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use so many structures only.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="'cpu', 'cuda', or 'auto' for a GPU where there is one.")
    ] = "auto",
) -> None:
    """Store in a model how its training data look from inside, and its limits.

    Writes a copy of the model with the statistics of its node features on the given
    structures, element by element, and how near atoms of two elements come there.
    `crack-md screen` then calls structures
    ``out_of_domain`` that are farther from them than 999 of 1,000 training atoms, or
    beyond the limits.
    """
    from crack_md.calculators import CrackCalculator
    from crack_md.models.checkpoint import save_model
    from crack_md.models.force_field import ForceField

    if structures is None and limits is None:
        raise ConfigError("nothing to store: give structures, --limits, or both")
    if not out.parent.is_dir():
        raise ConfigError(f"no folder '{out.parent}'; make it, or give another --out")
    known = _limits(limits, structures) if limits is not None else None
    loaded = CrackCalculator(model, device=device).models[0]
    metadata = loaded.metadata
    done = []
    if structures is not None:
        statistics, shortest = _statistics(loaded, structures, limit)
        metadata = replace(
            metadata, feature_statistics=statistics, shortest_distances=shortest
        )
        atoms = {z: entry.n_atoms for z, entry in sorted(statistics.elements.items())}
        done.append(
            f"statistics of {_counted(atoms)}, and shortest distances of "
            f"{len(shortest.pairs)} pairs of elements"
        )
    if known is not None:
        metadata = replace(metadata, limits=known)
        done.append(f"limits of '{limits}'")
    save_model(ForceField(loaded.network, loaded.scale, metadata), out)
    typer.echo(f"written to {out}: {'; '.join(done)}")


def _statistics(
    model: "ForceField", structures: Path, limit: int | None
) -> "tuple[FeatureStatistics, ShortestDistances]":
    from crack_md.calculators.feature_domain import training_statistics
    from crack_md.data.readers import count_structures, read_structures
    from crack_md.models.shortest_distances import ShortestDistances
    from crack_md.progress import show_progress

    total = limit if limit is not None else count_structures([structures])
    with show_progress("structures", total, quiet=False) as show:
        frames = list(islice(read_structures(structures), limit))
        statistics = training_statistics(model, frames, seen=show)
    return statistics, ShortestDistances.of(frames)


def _limits(path: Path, structures: Path | None) -> "Limits":
    """Return the limits of a file; spreads that it leaves open are measured."""
    from crack_md.data.label_spread import label_spreads
    from crack_md.data.readers import read_structures
    from crack_md.input_files import read_yaml
    from crack_md.models.limits import Limits

    content = read_yaml(path, what="limits, as configs/limits_orr.yaml") or {}
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' has no limits; see configs/limits_orr.yaml")
    spreads = content.pop("label_spreads", None) or []
    known = [each for each in spreads if each.get("spread_eV") is not None]
    limits = Limits.from_plain({**content, "label_spreads": known})
    missing = [each for each in spreads if each not in known]
    if not missing:
        return limits
    if structures is None:
        raise ConfigError(
            f"'{path}' leaves the spread of the labels open: give the labelled "
            "structures that it is measured on, or spread_eV"
        )
    sets = [frozenset(atomic_numbers(" ".join(each["metals"]))) for each in missing]
    measured = label_spreads(read_structures(structures), sets)
    return replace(limits, label_spreads=(*limits.label_spreads, *measured))


def _counted(atoms: dict[int, int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(f"{count} {chemical_symbols[z]}" for z, count in atoms.items())
