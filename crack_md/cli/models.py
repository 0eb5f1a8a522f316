"""Commands about model files: convert, info, domain, export."""

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from ase import Atoms
from ase.data import chemical_symbols
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crack_md.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from crack_md.models.domain import FeatureStatistics, ShortestDistances
    from crack_md.models.force_field import ForceField
    from crack_md.models.limits import Limits
    from crack_md.models.pickles import RawCheckpoint

EnergyReference = Literal["adsorption", "total"]
Part = Literal["student", "teacher"]

_SHOWN_PROVENANCE = (
    "source",
    "part",
    "weights",
    "teacher",
    "data",
    "losses",
    "metrics",
    "licence",
    "citation",
)
_KIND = "crack-md model, format {}"
_REFERENCE_MEANING = {
    "total": "total energy",
    "adsorption": "adsorption energy, E(adslab) - E(relaxed slab) - E(gas)",
}


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Public checkpoint: a CRACK release or an EquiformerV2 of OCP or "
            "fairchem v1."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="Model file to write, student.pt.")],
    *,
    part: Annotated[
        Part, typer.Option(help="Which model of a CRACK release to take.")
    ] = "student",
    energy_reference: Annotated[
        EnergyReference | None,
        typer.Option(
            help="What the energies are, if the file is wrong about it: 'adsorption' "
            "(OC20 style) or 'total'."
        ),
    ] = None,
    elements: Annotated[
        str | None,
        typer.Option(
            help="Elements the model was trained on, such as Pt,Ni,O; others will be "
            "refused. Default: what the file tells, else those of OC20."
        ),
    ] = None,
) -> None:
    """Turn a public checkpoint into a crack-md model. No code in the file is run."""
    from crack_md.models.checkpoint import FORMAT_VERSION, is_crack_md, save_model
    from crack_md.models.pickles import file_sha256, read_checkpoint

    raw = read_checkpoint(source)
    if is_crack_md(raw):
        raise CheckpointError(
            f"'{source}' is a crack-md model already; use it as it is, "
            f"or look at it with: crack-md info {source}"
        )
    if target.exists() and target.samefile(source):
        raise ConfigError(
            f"'{target}' is the file to convert; give the model another name"
        )
    model = _imported(
        raw,
        part=part,
        energy_reference=energy_reference,
        elements=None if elements is None else atomic_numbers(elements),
    )
    save_model(model, target)
    kind, sha256 = _KIND.format(FORMAT_VERSION), file_sha256(target)
    summary = describe(model, name=str(target), kind=kind, sha256=sha256)
    Console().print(_table(summary))


def info(
    model: Annotated[
        str, typer.Argument(help="Model file, or 'default' for the packaged student.")
    ],
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Say what a model file is: size, elements, cutoff, energies, where it is from."""
    from crack_md.models.checkpoint import is_crack_md, model_from
    from crack_md.models.pickles import read_checkpoint
    from crack_md.models.registry import dated_name, model_path

    path = model_path(model)
    raw = read_checkpoint(path)
    if is_crack_md(raw):
        loaded = model_from(raw)
        kind = _KIND.format(raw.content["format_version"])
    else:
        loaded = _imported(raw)
        kind = f"public checkpoint: {loaded.metadata.provenance['source']}"
    summary = describe(loaded, name=str(path), kind=kind, sha256=raw.sha256)
    summary["packaged_as"] = dated_name(model)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, default=str))
    else:
        Console().print(_table(summary))


def _register_models(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(convert)
    app.command()(info)


def atomic_numbers(symbols: str) -> list[int]:
    """Return the atomic numbers of symbols separated by commas or blanks."""
    names = symbols.replace(",", " ").split()
    unknown = [name for name in names if name not in chemical_symbols[1:]]
    if unknown or not names:
        raise ConfigError(
            f"--elements has {', '.join(unknown) or 'no element'}; expected chemical "
            "symbols such as Pt,Ni,O"
        )
    return [chemical_symbols.index(name) for name in names]


def _imported(raw: "RawCheckpoint", **options: Any) -> "ForceField":
    """Return the public model; what the importer warns of goes to stderr."""
    from crack_md.models.importers import import_public

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = import_public(raw, **options)
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)
    return model


def describe(
    model: "ForceField", *, name: str, kind: str, sha256: str
) -> dict[str, Any]:
    """Return what there is to know about a model, ready for JSON."""
    config, metadata = model.network.config, model.metadata
    count = getattr(model.rule, "count", "all")
    return {
        "file": name,
        "kind": kind,
        "sha256": sha256,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "forces": config.forces,
        "energy_reference": metadata.energy_reference,
        "gas_references_eV": dict(metadata.gas_references),
        "elements": [chemical_symbols[number] for number in metadata.elements],
        "cutoff_A": config.cutoff,
        "neighbors": count,
        "short_range": config.short_range,
        "shortest_distances_A": None
        if metadata.shortest_distances is None
        else metadata.shortest_distances.plain(),
        "energy_scale": {
            "mean_eV": model.scale.mean,
            "std_eV": model.scale.std,
            "force_std_eV_per_A": model.scale.force_std,
            "element_references": bool(model.scale.element_references),
        },
        "architecture": dataclasses.asdict(config),
        "sizes": config.summary,
        "provenance": dict(metadata.provenance),
    }


def _shown(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what a reader asks first; `--json` has the rest."""
    shown = {key: provenance.get(key) for key in _SHOWN_PROVENANCE}
    metrics = shown["metrics"]
    if isinstance(metrics, dict) and isinstance(metrics.get("all"), dict):
        shown["metrics"] = {
            name: value if isinstance(value, int) else f"{value:.4g}"
            for name, value in metrics["all"].items()
            if value is not None
        }
    return shown


def _table(summary: dict[str, Any]) -> Table:
    table = Table(show_header=False, title=Text(summary["file"]), title_justify="left")
    rows = {
        "packaged as": summary.get("packaged_as") or "",
        "kind": summary["kind"],
        "architecture": summary["sizes"],
        "parameters": f"{summary['parameters']:,}",
        "energy": _REFERENCE_MEANING[summary["energy_reference"]],
        "forces": _FORCES_MEANING[summary["forces"]],
        "neighbors": _neighbors(summary),
        "short range": _SHORT_RANGE_MEANING[summary["short_range"]],
        "shortest distances": _shortest(summary["shortest_distances_A"]),
        "elements": f"{len(summary['elements'])}: {' '.join(summary['elements'])}",
        "gas references": ", ".join(
            f"{gas} {energy:.3f} eV"
            for gas, energy in summary["gas_references_eV"].items()
        ),
        **{key: _text(value) for key, value in _shown(summary["provenance"]).items()},
        "sha256": summary["sha256"],
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value, overflow="fold"))
    return table


_FORCES_MEANING = {
    "direct": "direct (a head of the network, not a gradient)",
    "gradient": "gradient of the energy",
}

_SHORT_RANGE_MEANING = {
    "none": "no repulsion of its own: energies of atoms nearer than bonds mean nothing",
    "zbl": "ZBL repulsion below 0.8 of the sum of covalent radii",
}


def _shortest(pairs: list[list[float]] | None) -> str:
    if pairs is None:
        return "of the training data: not stored, atoms too near are not noticed"
    return f"of the training data: stored for {len(pairs)} pairs of elements"


def _neighbors(summary: dict[str, Any]) -> str:
    count, cutoff = summary["neighbors"], summary["cutoff_A"]
    if count == "all":
        return f"all inside {cutoff:g} Å, smooth"
    return f"the {count} nearest inside {cutoff:g} Å"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(_text(item) for item in value)
    return "" if value is None else str(value)


def _register_domain(app: typer.Typer) -> None:
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
            help="What the model may be asked for: a file such as "
            "configs/limits_orr.yaml.",
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
    from crack_md.calculators.crack import training_statistics
    from crack_md.data.readers import count_structures, read_structures
    from crack_md.models.domain import ShortestDistances
    from crack_md.progress import show_progress

    total = limit if limit is not None else count_structures([structures])
    with show_progress("structures", total, quiet=False) as show:
        frames = list(islice(read_structures(structures), limit))
        statistics = training_statistics(model, _counted_by(show, frames))
    return statistics, ShortestDistances.of(frames)


def _counted_by(show: Callable[..., None], frames: Sequence[Atoms]) -> Iterator[Atoms]:
    for count, atoms in enumerate(frames, start=1):
        yield atoms
        show(count)


def _limits(path: Path, structures: Path | None) -> "Limits":
    """Return the limits of a file; spreads that it leaves open are measured."""
    from crack_md.data.readers import read_structures
    from crack_md.data.statistics import label_spreads
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


def export(
    model: Annotated[
        str, typer.Argument(help="Model file, or 'default' for the packaged student.")
    ],
    *,
    to: Annotated[
        Literal["metatomic", "mliap"],
        typer.Option("--format", help="Which programs it is for."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write. Default: MODEL-metatomic.pt or "
            "MODEL-mliap.pickle, in this folder."
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float64"], typer.Option(help="Precision of the network.")
    ] = "float32",
) -> None:
    """Write a model as one file for other programs.

    metatomic: for its ASE calculator, its torch-sim model and i-PI, among others, which
    run it without crack-md. The file is compared with the model before it is written.

    mliap: for LAMMPS with its ML-IAP package and Python, where crack-md is installed.
    """
    ending = {"metatomic": "pt", "mliap": "pickle"}[to]
    target = out or Path(f"{Path(model).stem}-{to}.{ending}")
    if not target.parent.is_dir():
        raise ConfigError(
            f"no folder '{target.parent}'; make it, or give another --out"
        )
    if Path(model).is_file() and target.exists() and target.samefile(model):
        raise ConfigError(f"'{target}' is the model to export; give another --out")
    if to == "mliap":
        _export_for_mliap(model, target, dtype)
        return
    from crack_md.calculators import metatomic

    difference = metatomic.export(model, target, dtype=dtype)
    typer.echo(
        f"written to {target}: {dtype}, within {difference:.0e} of the model's "
        "energies, forces and stresses in metatomic's ASE calculator on a CPU; the "
        "warnings of crack-md about structures unlike the training data are not in it"
    )


def _export_for_mliap(
    model: str, target: Path, dtype: Literal["float32", "float64"]
) -> None:
    if target.suffix in {".pt", ".pth"}:
        raise ConfigError(
            f"LAMMPS would read '{target}' with torch.load, which refuses objects; "
            "give an --out that ends in .pickle"
        )
    from crack_md.calculators import mliap
    from crack_md.calculators.crack import DTYPES

    mliap.export(model, target, dtype=DTYPES[dtype])
    typer.echo(
        f"written to {target}: {dtype}; in LAMMPS (units metal): pair_style mliap "
        f"unified {target}; it was tested with a stand-in for LAMMPS's data, not in "
        "LAMMPS: compare a step with the calculator before you trust it"
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    _register_models(app)
    _register_domain(app)
    app.command()(export)
