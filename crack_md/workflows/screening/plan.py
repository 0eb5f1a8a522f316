"""Settings of a screening, and what it will do with each entry before any force."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import BaseCalculator
from ase.geometry import minkowski_reduce

from crack_md.errors import ConfigError
from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.orr import (
    CORRECTIONS,
    DEFAULT_CORRECTIONS,
    DEFAULT_REFERENCE,
    DEFAULT_SOLVATION,
    NO_SOLVATION,
    SCALINGS,
    SOLVATIONS,
    gas_energy,
    has_water,
    reference_named,
    require_same_water,
    scalings_for,
)
from crack_md.workflows.relax.relax import (
    DEFAULT_OPTIMIZER,
    MAXSTEP_A,
    PLATEAU_STEPS,
    STALL_STEPS,
    RelaxSettings,
    optimizer_named,
    relax_fcc_constant,
)
from crack_md.workflows.surfaces.adsorbates import (
    ADSORBATES,
    Adsorbate,
    Placement,
    random_starts,
    site_starts,
)
from crack_md.workflows.surfaces.sites import Site, find_sites, random_sites, some_sites
from crack_md.workflows.surfaces.slab import Slab, SlabError, prepare_slab

DEFAULT_DTYPES = (None, "float32")


@dataclass(frozen=True)
class ScreenSettings:
    """What decides the numbers of a screening, besides model and structures."""

    adsorbates: tuple[Adsorbate, ...] = (ADSORBATES["O"],)
    """The first one is the one that tables are about."""
    fmax: float = 0.03
    steps: int = 300
    maxstep: float = MAXSTEP_A
    optimizer: str = DEFAULT_OPTIMIZER
    orientations: int = 2
    """Turns about the normal that a leaning molecule starts with on every site."""
    random_placements: int = 0
    """Further starts per adsorbate, anywhere on the surface."""
    seed: int = 0
    max_sites: int | None = None
    """Most sites per slab; where there are more, this number is drawn at random."""
    reference: str = DEFAULT_REFERENCE
    corrections: str = DEFAULT_CORRECTIONS
    scaling: str | None = None
    """None takes the set that goes with the water around what is computed."""
    solvation: str = DEFAULT_SOLVATION
    """What water adds to OH* and OOH* where they are computed."""
    stability: bool = False
    """Whether formation, segregation and dissolution are worked out as well."""
    coverages: tuple[float, ...] = ()
    """Further coverages of O* in monolayers: O* for each surface atom."""

    def __post_init__(self) -> None:
        """Sort coverages, and refuse what are no numbers."""
        try:
            rising = tuple(sorted({float(each) for each in self.coverages}))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"coverages {self.coverages!r}; expected numbers such as [0.25, 0.5]"
            ) from error
        object.__setattr__(self, "coverages", rising)

    @property
    def scaling_set(self) -> str:
        """Return the name of the scaling relations in use."""
        names = [adsorbate.name for adsorbate in self.adsorbates]
        return self.scaling or scalings_for(names, self.solvation)[0]

    @property
    def solvation_set(self) -> str:
        """Return the name of the water in use; ``none`` without computed OH*, OOH*."""
        names = [adsorbate.name for adsorbate in self.adsorbates]
        return self.solvation if has_water(names, self.solvation) else NO_SOLVATION

    @property
    def adsorbate(self) -> str:
        """Return the name of the first adsorbate."""
        return self.adsorbates[0].name

    def check(self) -> None:
        """Raise ConfigError for an unknown name, OH* of two kinds, no coverage."""
        optimizer_named(self.optimizer)
        reference_named(self.reference)
        for kind, name, known in (
            ("corrections", self.corrections, CORRECTIONS),
            ("solvation", self.solvation, SOLVATIONS),
            ("scaling", self.scaling_set, SCALINGS),
        ):
            if name not in known:
                names = ", ".join(known)
                raise ConfigError(f"unknown {kind} '{name}'; expected one of: {names}")
        for coverage in self.coverages:
            if not 0 < coverage <= 1:
                raise ConfigError(
                    f"coverage {coverage:g}; expected monolayers, O* for each surface "
                    "atom: more than 0 and at most 1"
                )
        if self.coverages and "O" not in [each.name for each in self.adsorbates]:
            raise ConfigError(
                "coverages are those of O*, which is compared with O* alone: add O to "
                "the adsorbates"
            )
        require_same_water(
            [adsorbate.name for adsorbate in self.adsorbates],
            scaling=self.scaling_set,
            solvation=self.solvation,
        )

    def for_model(self, model: ModelInfo) -> "ScreenSettings":
        """Return the settings without optional adsorbates that the model lacks."""
        kept = tuple(
            adsorbate
            for adsorbate in self.adsorbates
            if not adsorbate.is_optional or model.holds_adsorbate(adsorbate.name)
        )
        return replace(self, adsorbates=kept)

    def check_for(self, model: ModelInfo) -> None:
        """Raise ConfigError where a model cannot say anything about an adsorbate.

        It was not trained on an element, or a gas energy is missing that total energies
        refer to.
        """
        if self.stability and model.energy_reference != "total":
            raise ConfigError(
                "stability needs total energies, and this is a model of adsorption "
                "energies: it knows no bulk, no vacancy and no swapped surface; take "
                "a model of total energies, or leave --stability out"
            )
        if self.coverages and model.energy_reference != "total":
            raise ConfigError(
                "coverages need total energies, and this is a model of adsorption "
                "energies of one adsorbate: take a model of total energies, or leave "
                "--coverage out"
            )
        energies = self.gas_energies(model)
        for adsorbate in self.adsorbates:
            refusal = model.refusal(
                adsorbate.composition, of=f", which {adsorbate.name} holds"
            )
            if refusal:
                raise ConfigError(refusal)
            if model.energy_reference == "total":
                gas_energy(adsorbate.name, adsorbate.composition, energies)

    def relaxation(self, *, direct_forces: bool) -> RelaxSettings:
        """Return how clean and covered slabs are relaxed."""
        return RelaxSettings(
            optimizer=self.optimizer,
            fmax=self.fmax,
            steps=self.steps,
            maxstep=self.maxstep,
            plateau_steps=PLATEAU_STEPS if direct_forces else None,
        )

    def gas_energies(self, model: ModelInfo) -> Mapping[str, float]:
        """Return the energies in eV of gas molecules that the reference names."""
        return reference_named(self.reference).gas_energies or model.gas_references

    def conditions(self, model: ModelInfo) -> dict[str, Any]:
        """Return what two runs must share for one to continue the other.

        Which adsorbates, sites and random places there are is no part of it: a second
        run in the same folder may add to them.
        """
        direct = model.forces == "direct"
        # left out where it is the default: folders of earlier versions go on
        other = {"dtype": model.dtype} if model.dtype not in DEFAULT_DTYPES else {}
        return {
            "fmax_eV_per_A": self.fmax,
            "steps": self.steps,
            "maxstep_A": self.maxstep,
            "optimizer": self.optimizer,
            "plateau_steps": PLATEAU_STEPS if direct else None,
            "stall_steps": STALL_STEPS,
            "model_sha256": model.sha256,
            "energy_reference": model.energy_reference,
            "gas_references_eV": dict(model.gas_references),
            **other,
        }


PT111_NAME = "Pt(111) reference"
PT_RPBE_A = 3.99
"""RPBE lattice constant, for models that can say nothing about a bulk crystal."""
SAME_LATTICE = 0.005
"""Strain of 0.5 % moves O* by 0.02 eV at most."""
MAGNETIC = frozenset(["Cr", "Mn", "Fe", "Co", "Ni"])
CROWDED_A = 4.0
"""Adsorbates nearer to their images than this repel one another by 0.3 eV and more."""


@dataclass(frozen=True, eq=False)
class SlabPlan:
    """What will be done with one entry, or why nothing can be."""

    name: str
    formula: str
    slab: Slab | None
    sites: Mapping[str, tuple[Site, ...]] = field(default_factory=dict)
    """Symmetry-distinct sites, by the element that binds."""
    starts: tuple[Placement, ...] = ()
    status: str = "ok"
    error: str = ""
    preparation: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Key-value pairs of the input, for the table."""


def plan_slab(
    entry: StructureEntry, *, model: ModelInfo, settings: ScreenSettings
) -> SlabPlan:
    """Return the prepared slab of an entry and its starts, or the reason why not."""
    if entry.atoms is None:
        return SlabPlan(
            entry.name,
            "",
            None,
            status=entry.status,
            error=entry.error,
            preparation=entry.notes,
            columns=entry.columns,
        )
    formula = entry.atoms.get_chemical_formula(mode="metal")
    refused = SlabPlan(
        entry.name, formula, None, preparation=entry.notes, columns=entry.columns
    )
    try:
        slab = prepare_slab(entry.atoms, adsorbate=settings.adsorbates[0].binding)
        _require_known_elements(entry.atoms, model, settings)
        bindings = dict.fromkeys(a.binding for a in settings.adsorbates)
        sites = {b: find_sites(slab, adsorbate=b) for b in bindings}
        starts = tuple(starts_on(slab, sites, settings))
    except SlabError as error:
        return replace(refused, status=error.status, error=str(error))
    except Exception as error:  # one odd structure must not end a night's screening
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return replace(refused, status="failed", error=text)
    return SlabPlan(
        entry.name,
        formula,
        slab,
        sites,
        starts,
        preparation=(*entry.notes, *slab.preparation),
        warnings=tuple(_warnings(slab, sites, model, settings)),
        columns=entry.columns,
    )


def _require_known_elements(
    atoms: Atoms, model: ModelInfo, settings: ScreenSettings
) -> None:
    needed = set(atoms.symbols)
    needed |= {symbol for a in settings.adsorbates for symbol in a.composition}
    if refusal := model.refusal(needed):
        raise SlabError("unknown_element", refusal)


def starts_on(
    slab: Slab, sites: Mapping[str, tuple[Site, ...]], settings: ScreenSettings
) -> Iterator[Placement]:
    """Yield where adsorbates start on a slab: its sites, then random places."""
    for adsorbate in settings.adsorbates:
        chosen = some_sites(
            sites[adsorbate.binding], limit=settings.max_sites, seed=settings.seed
        )
        yield from site_starts(adsorbate, chosen, orientations=settings.orientations)
        drawn = random_sites(
            slab,
            count=settings.random_placements,
            seed=settings.seed,
            adsorbate=adsorbate.binding,
        )
        yield from random_starts(adsorbate, drawn, seed=settings.seed)


def _warnings(
    slab: Slab,
    sites: Mapping[str, tuple[Site, ...]],
    model: ModelInfo,
    settings: ScreenSettings,
) -> Iterator[str]:
    """Yield what a reader of the row must know to judge its numbers."""
    yield from slab.warnings
    magnetic = sorted(MAGNETIC & set(slab.atoms.symbols))
    if magnetic and not model.spin_polarised:
        unsure = "was not" if model.spin_polarised is False else "may not have been"
        yield (
            f"{', '.join(magnetic)}: the training data of the model {unsure} "
            "spin-polarised, and adsorption on magnetic metals depends on it"
        )
    if model.limits is not None:
        yield from model.limits.warnings(slab.atoms.numbers.tolist())
    elif model.dtype is not None:  # a network
        for adsorbate in settings.adsorbates:
            if (adsorbate.atoms.numbers > 1).sum() > 1:
                yield (
                    f"{adsorbate.name}*: the model does not say whether its training "
                    "data held it; its energy may mean nothing"
                )
    reduced, _ = minkowski_reduce(slab.atoms.cell, pbc=[True, True, False])
    apart = float(np.linalg.norm(np.asarray(reduced)[:2], axis=1).min())
    if apart < CROWDED_A:
        yield f"adsorbates are {apart:.1f} Å apart: a high coverage, they repel"
    most = max(len(found) for found in sites.values())
    if settings.max_sites is not None and most > settings.max_sites:
        yield f"{settings.max_sites} of {most} sites, drawn at random"


def plan_pt111(
    plans: Sequence[SlabPlan],
    calculator: BaseCalculator,
    model: ModelInfo,
    settings: ScreenSettings,
) -> tuple[SlabPlan | None, str]:
    """Return the Pt(111) p(2x2) slab to compare with, and where it comes from.

    One of the input is taken where its lattice constant is within 0.5 % of the model's
    own; the nearest of several, so that the order of the input does not matter.
    """
    if all(plan.slab is None for plan in plans):
        return None, "none: there is nothing to compare"
    given = [plan for plan in plans if _is_pt111(plan)]
    if not given and model.elements is not None and "Pt" not in model.elements:
        return None, "none: the model does not know Pt"
    constant, source = PT_RPBE_A, "built at the RPBE lattice constant"
    if model.energy_reference == "total":
        try:
            constant = relax_fcc_constant("Pt", calculator)
        except Exception as error:
            return None, f"none: relaxing bulk Pt failed ({error})"
        source = f"built at the model's own lattice constant, {constant:.3f} Å"
    strains = {plan.name: _strain(plan, constant) for plan in given}
    given.sort(key=lambda plan: (round(abs(strains[plan.name]), 5), plan.name))
    if given and abs(strains[given[0].name]) <= SAME_LATTICE:
        return given[0], f"'{given[0].name}' of the input"
    if given:
        nearest = strains[given[0].name]
        source += f"; '{given[0].name}' of the input is strained by {nearest:+.1%}"
    atoms = fcc111("Pt", (2, 2, 4), a=constant, vacuum=8.0)
    return plan_slab(
        StructureEntry(PT111_NAME, atoms), model=model, settings=settings
    ), source


def _strain(plan: SlabPlan, constant: float) -> float:
    """Return the strain of largest size among the neighbor distances of a p(2x2)."""
    assert plan.slab is not None
    reduced, _ = minkowski_reduce(plan.slab.atoms.cell, pbc=[True, True, False])
    a, b = np.asarray(reduced)[:2] / 2
    third = a - b if a @ b > 0 else a + b
    apart = np.linalg.norm([a, b, third], axis=1)
    strains = apart * np.sqrt(2) / constant - 1
    return float(strains[np.abs(strains).argmax()])


def _is_pt111(plan: SlabPlan) -> bool:
    """Return whether a plan is pure Pt(111) at a quarter of a monolayer."""
    if plan.slab is None or set(plan.slab.atoms.symbols) != {"Pt"}:
        return False
    kinds = [site.kind for site in next(iter(plan.sites.values()))]
    right_size = len(plan.slab.surface) == 4 and plan.slab.n_layers >= 3
    return right_size and kinds == ["ontop", "bridge", "fcc", "hcp"]
