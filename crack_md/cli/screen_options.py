"""The options of ``crack-md screen``, with the words that explain them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Surfaces = Annotated[
    Path,
    typer.Argument(
        help="Slabs to screen: an ASE database, extxyz, traj, cif, POSCAR, or a folder "
        "of these. With --miller, bulks to cut slabs from."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        help="'default' (the packaged student), a model file, or 'emt' (ASE's toy "
        "potential, for trying things out)."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        help="Folder for results. Run again with the same one to go on where a "
        "stopped run ended."
    ),
]
Select = Annotated[
    str | None,
    typer.Option(help="Which rows of ASE databases, as metal=Pt,coverage<0.5 says."),
]
Frames = Annotated[
    Literal["last", "all"],
    typer.Option(help="Take the last frame of a trajectory, or all frames."),
]
MillerIndices = Annotated[
    str | None,
    typer.Option(
        "--miller", help="Cut slabs from bulks along these planes: 111,100,211."
    ),
]
Terminations = Annotated[
    bool, typer.Option("--terminations", help="Cut every distinct termination.")
]
Thickness = Annotated[
    float,
    typer.Option("--thickness", min=1.0, help="Least thickness of cut slabs, Å."),
]
Vacuum = Annotated[
    float, typer.Option("--vacuum", min=6.0, help="Vacuum above cut slabs, Å.")
]
Width = Annotated[
    float, typer.Option("--width", min=1.0, help="Least lateral width of cut slabs, Å.")
]
Adsorbates = Annotated[
    str,
    typer.Option(
        "--adsorbate",
        help="What adsorbs, separated by commas: O, OH, OOH, orr (O, OH, and OOH where "
        "the model's limits hold it), an element, a molecule with the atom that binds "
        "(CO:C), or a structure file (mine.xyz:0).",
    ),
]
RandomPlacements = Annotated[
    int,
    typer.Option("--random", min=0, help="Further starts at random places."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random choices.")]
Orientations = Annotated[
    int, typer.Option(min=1, help="Turns of a leaning molecule on every site.")
]
MaxSites = Annotated[
    int | None,
    typer.Option(
        min=1, help="Most sites per slab; where there are more, a random choice."
    ),
]
Optimizer = Annotated[
    str, typer.Option(help="An optimizer of ASE: LBFGS, BFGS, FIRE, RFO ...")
]
Fmax = Annotated[
    float, typer.Option(min=1e-6, help="Relax until no force exceeds this, eV/Å.")
]
Steps = Annotated[int, typer.Option(min=1, help="Most steps of one relaxation.")]
Reference = Annotated[
    str,
    typer.Option(
        help="What adsorption energies are against: H2O-H2, half-O2, or OC20 (gas "
        "energies of that data set)."
    ),
]
Corrections = Annotated[
    str, typer.Option(help="Set of free-energy corrections: norskov-2004, man-2011.")
]
Scaling = Annotated[
    str | None,
    typer.Option(
        help="Set of scaling relations: man-2011 (OH* without water), hansen-2014 "
        "(OH* with water). Default: man-2011 for O* alone, else the one that goes with "
        "--solvation.",
    ),
]
Solvation = Annotated[
    str,
    typer.Option(
        help="What water adds to OH* and OOH* where they are computed: none, "
        "calle-vallejo-2015, peterson-2010.",
    ),
]
Stability = Annotated[
    bool,
    typer.Option(
        "--stability",
        help="Also relax swapped, damaged and pure slabs: formation and segregation "
        "energies, dissolution potentials, stability.csv. Total-energy models only.",
    ),
]
Coverages = Annotated[
    str | None,
    typer.Option(
        "--coverage",
        help="Also put more O* on the best hollows, such as 0.25,0.5 (O* for each "
        "surface atom): mean and differential energies, lateral interaction, "
        "coverage.csv. Total-energy models only.",
    ),
]
GasReference = Annotated[
    str | None,
    typer.Option(
        help="Energies of the gas molecules by the same model in eV, such as "
        "H2O=-12.81,H2=-6.98. Default: those stored in the model."
    ),
]
Device = Annotated[
    str, typer.Option(help="'cpu', 'cuda', or 'auto' for a GPU where there is one.")
]
Precision = Annotated[
    Literal["float32", "float64"],
    typer.Option(
        help="Precision of the network. In float64 results are the same to the last "
        "printed digit with any --batch; it takes about twice as long."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes on this machine, each with a model and a share of the cores; "
        "with --ray, workers of the cluster (default: as many as it has room for).",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Relaxations at a time in every process, which share forward passes. "
        "Default: 64 on a GPU, 1 on a CPU.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Work on a Ray cluster: 'local' (a new one on this machine), 'auto' (the "
        "one this machine belongs to), host:port or ray://host:port.",
    ),
]
GpusPerWorker = Annotated[
    float,
    typer.Option(
        "--gpus-per-worker",
        min=0.0,
        help="Share of a GPU for every Ray worker; 0.25 puts four on each.",
    ),
]
DatabaseAddress = Annotated[
    str | None,
    typer.Option(
        "--db",
        help="Keep relaxations on a server: postgresql://user:password@host:5432/name.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")
]
