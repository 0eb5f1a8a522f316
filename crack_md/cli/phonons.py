"""``crack-md phonons``: vibrations of crystals and of adsorbates."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crack_md.cli.common import (
    AsJson,
    Device,
    Index,
    Model,
    Results,
    explain_interruption,
    load_for,
    print_facts,
    print_json,
    show_run,
)
from crack_md.errors import ConfigError

if TYPE_CHECKING:
    from ase import Atoms

    from crack_md.workflows.model_info import ModelInfo
    from crack_md.workflows.phonons.settings import PhononSettings
    from crack_md.workflows.relax.relax import RelaxSettings

SHOWN_MODES = 6


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("phonons")(phonons)


def phonons(
    structure: Annotated[
        Path,
        typer.Argument(help="A crystal: extxyz, cif, POSCAR, ASE db ..., in any cell."),
    ],
    *,
    model: Model = "default",
    supercell: Annotated[
        str | None,
        typer.Option(help="Repeats of the cell, such as 3,3,3. Default: --min-length."),
    ] = None,
    min_length: Annotated[
        float, typer.Option(help="Å that each vector of the supercell has at least.")
    ] = 15.0,
    displacement: Annotated[float, typer.Option(help="Å, in both directions.")] = 0.01,
    relax: Annotated[
        bool,
        typer.Option(
            help="Relax first: positions, and the cell where the model has stress, at "
            "the symmetry of the start."
        ),
    ] = True,
    fmax: Annotated[
        float, typer.Option(min=1e-7, help="eV/Å to relax to; small, for curvatures.")
    ] = 1e-4,
    adsorbate_modes: Annotated[
        bool,
        typer.Option(
            "--adsorbate-modes",
            help="Modes of an adsorbate on a slab instead, all other atoms fixed. The "
            "adsorbate: atoms of tag 2 as in OC20, or nonmetals on one side.",
        ),
    ] = False,
    index: Index = -1,
    out: Results = Path("phonon-results"),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compute phonons: bands, density of states, heat, and what is unstable.

    Writes phonons.json, bands.png, dos.csv, thermal.csv and phonopy_params.yaml, which
    phonopy reads; with --adsorbate-modes modes.json. Needs the extra 'phonons', except
    for adsorbates. Forces are computed in float64.
    """
    from crack_md.api.inputs import as_atoms
    from crack_md.workflows.phonons.settings import PhononSettings
    from crack_md.workflows.relax.relax import RelaxSettings

    settings = PhononSettings(
        supercell=None if supercell is None else _repeats(supercell),
        min_length_A=min_length,
        displacement_A=displacement,
    )
    relaxation = RelaxSettings(fmax=fmax, steps=500) if relax else None
    atoms = as_atoms(structure, index)
    calculator, info = load_for(
        atoms,
        model,
        device=device,
        direct_forces="their derivatives are not symmetric, and are symmetrised here",
        dtype="float64",
    )
    job = _Job(atoms, calculator, info, settings, relaxation, out)
    summary, facts, file = (_modes if adsorbate_modes else _bands)(job)
    if as_json:
        print_json(summary)
    else:
        print_facts(facts, f"written to {out}/{file}")


@dataclass(frozen=True)
class _Job:
    atoms: "Atoms"
    calculator: Any
    info: "ModelInfo"
    settings: "PhononSettings"
    relaxation: "RelaxSettings | None"
    """None for a structure that stays as it is."""
    out: Path


Found = tuple[dict[str, Any], dict[str, str], str]
"""The summary, what is printed of it, and the file that holds it all."""


def _bands(job: _Job) -> Found:
    from crack_md.api.runs import PHONON_FMAX, compute_phonons
    from crack_md.workflows.phonons.run import RESIDUAL_FORCE

    relaxation = job.relaxation
    with show_run(job.out) as report:
        result = compute_phonons(
            job.atoms,
            job.calculator,
            out=job.out,
            relax=relaxation is not None,
            fmax=PHONON_FMAX if relaxation is None else relaxation.fmax,
            model=job.info,
            report=report,
            **vars(job.settings),
        )
    for note in result.summary["notes"]:
        typer.echo(f"note: {note}", err=True)
    residual = result.summary["max_force_eV_per_A"]
    if residual > RESIDUAL_FORCE:
        typer.echo(
            f"note: forces of {residual:.3f} eV/Å are left on this structure: it is no "
            "minimum of the model, and imaginary modes may come from that",
            err=True,
        )
    return result.summary, _facts(result.summary), ": phonons.json ..."


def _facts(summary: dict[str, Any]) -> dict[str, str]:
    from crack_md.workflows.phonons.settings import THZ_TO_PER_CM

    repeats = "×".join(map(str, summary["supercell"]))
    unstable = summary["imaginary_modes"]
    lines = [
        f"{mode['label']} branch {mode['branch']}: {-mode['frequency_THz']:.3f}i THz "
        f"({-mode['frequency_per_cm']:.0f}i cm⁻¹)"
        + ("" if mode["commensurate"] else ", interpolated")
        for mode in unstable[:SHOWN_MODES]
    ]
    if len(unstable) > SHOWN_MODES:
        lines.append(f"and {len(unstable) - SHOWN_MODES} more in phonons.json")
    return {
        "crystal": f"{summary['formula']}, supercell {repeats} of "
        f"{summary['supercell_atoms']} atoms, displaced in "
        f"{summary['n_displacements']} ways",
        "frequencies": f"up to {summary['max_frequency_THz']:.3f} THz "
        f"({summary['max_frequency_THz'] * THZ_TO_PER_CM:.0f} cm⁻¹)",
        "asymmetry": f"{summary['force_constant_asymmetry']:.1e} of the force "
        "constants, before they are symmetrised",
        "zero point": f"{summary['zero_point_energy_eV']:.4f} eV per primitive cell of "
        f"{summary['n_atoms_primitive']} atoms",
        f"at {summary['at_K']:g} K": f"F {summary['free_energy_eV']:.4f} eV, "
        f"S {1000 * summary['entropy_eV_per_K']:.4f} meV/K, "
        f"C {1000 * summary['heat_capacity_eV_per_K']:.4f} meV/K",
        "imaginary": "\n".join(lines) or "none",
    }


def _modes(job: _Job) -> Found:
    from crack_md.api.inputs import identity
    from crack_md.workflows.phonons.modes import run_adsorbate_modes

    with explain_interruption(job.out):
        summary = run_adsorbate_modes(
            job.atoms,
            job.calculator,
            folder=job.out,
            displacement_A=job.settings.displacement_A,
            relaxation=job.relaxation,
            provenance=identity(job.info),
        )
    wavenumbers = ", ".join(
        f"{value:.1f}" if value >= 0 else f"{-value:.1f}i"
        for value in summary["frequency_per_cm"]
    )
    names = map("{}{}".format, summary["symbols"], summary["atoms"])
    facts = {
        "adsorbate": f"{' '.join(names)} of {summary['formula']}",
        "modes": f"{wavenumbers} cm⁻¹",
        "zero point": f"{summary['zero_point_energy_eV']:.4f} eV",
        "asymmetry": f"{summary['hessian_asymmetry']:.1e} of the Hessian",
        "forces left": f"{summary['max_force_eV_per_A']:.1e} eV/Å on the adsorbate",
    }
    return summary, facts, "modes.json"


def _repeats(text: str) -> tuple[int, int, int]:
    """Return (2, 2, 2) from ``2,2,2``."""
    try:
        a, b, c = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise ConfigError(
            f"cannot read --supercell '{text}'; expected three numbers such as 3,3,3"
        ) from None
    return a, b, c
