"""The command that teaches a model what it was trained on: ``crack-md domain``."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from crack_md.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("domain")(domain)


def domain(
    model: Annotated[str, typer.Argument(help="A model file, or 'default'.")],
    structures: Annotated[
        Path, typer.Argument(help="Its training data: anything ASE reads, or a folder.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use so many structures only.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="'cpu', 'cuda', or 'auto' for a GPU where there is one.")
    ] = "auto",
) -> None:
    """Store in a model how its training data look from inside.

    Writes a copy of the model with the statistics of its node features on the given
    structures, element by element. `crack-md screen` then calls structures
    ``out_of_domain`` that are farther from them than 999 of 1,000 training atoms.
    """
    from dataclasses import replace

    from crack_md.calculators import CrackCalculator
    from crack_md.calculators.feature_domain import training_statistics
    from crack_md.data.readers import count_structures, read_structures
    from crack_md.models.checkpoint import save_model
    from crack_md.models.force_field import ForceField
    from crack_md.progress import show_progress

    if not out.parent.is_dir():
        raise ConfigError(f"no folder '{out.parent}'; make it, or give another --out")
    loaded = CrackCalculator(model, device=device).models[0]
    total = limit if limit is not None else count_structures([structures])
    with show_progress("structures", total, quiet=False) as show:
        statistics = training_statistics(
            loaded, islice(read_structures(structures), limit), seen=show
        )
    metadata = replace(loaded.metadata, feature_statistics=statistics)
    save_model(ForceField(loaded.network, loaded.scale, metadata), out)
    atoms = {z: entry.n_atoms for z, entry in sorted(statistics.elements.items())}
    typer.echo(f"written to {out}: statistics of {_counted(atoms)}")


def _counted(atoms: dict[int, int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(f"{count} {chemical_symbols[z]}" for z, count in atoms.items())
