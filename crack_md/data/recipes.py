"""Configuration of `crack-md augment`: which structures, and which frames of each."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from crack_md.errors import ConfigError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Family = Literal["fcc111", "fcc100", "fcc211", "hcp0001", "bulk"]


def _known_element(symbol: str) -> str:
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"'{symbol}' is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_known_element)]


class Section(BaseModel):
    """A part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Rattle(Section):
    """Independent displacements of all atoms."""

    share: Fraction = 1.0
    """Part of the structures that get this variant."""
    frames: int = Field(default=4, ge=1)
    smallest: float = Field(default=0.02, gt=0)
    """Å, standard deviation per coordinate; amplitudes are drawn in between."""
    largest: float = Field(default=0.25, gt=0)


class Strain(Section):
    """Homogeneous strain of the cell, with a small rattle."""

    share: Fraction = 1.0
    frames: int = Field(default=2, ge=1)
    largest: float = Field(default=0.05, gt=0, lt=0.5)
    """Strain components are drawn from ± this, along periodic directions only."""
    rattle: float = Field(default=0.05, ge=0)


class Relax(Section):
    """Frames along a relaxation with the teacher, its end included."""

    share: Fraction = 1.0
    steps: int = Field(default=30, ge=1)
    spacing: float = Field(default=0.015, ge=0)
    """Å that some atom has moved since the last frame that was kept."""
    fmax: float = Field(default=0.03, gt=0)
    rattled_ends: int = Field(default=3, ge=0)
    """Further frames: the end of the relaxation, rattled; they show its curvature."""
    largest_end_rattle: float = Field(default=0.12, gt=0.01)
    """Å, largest standard deviation of these."""
    rattle: float = Field(default=0.05, ge=0)
    """Å, before the relaxation starts."""
    fixed_layers: Fraction = 0.4
    """Lower part of a slab that stays fixed while it relaxes."""


class Thermal(Section):
    """Frames of a short Langevin run with the teacher.

    All atoms get the same mass: averages over positions do not depend on masses, and a
    heavy hydrogen allows a long time step.
    """

    share: Fraction = 1.0
    steps: int = Field(default=24, ge=1)
    every: int = Field(default=4, ge=1)
    coldest_K: float = Field(default=300.0, gt=0)
    hottest_K: float = Field(default=800.0, gt=0)
    timestep_fs: float = Field(default=5.0, gt=0)
    mass_u: float = Field(default=30.0, gt=0)
    friction_per_ps: float = Field(default=20.0, ge=0)


class Variants(Section):
    """Which frames are made of each structure; leave one out to skip it."""

    rattle: Rattle | None = Rattle()
    strain: Strain | None = None
    relax: Relax | None = None
    thermal: Thermal | None = None


class Alloys(Section):
    """Base structures of metals and alloys, clean and with O* and OH*."""

    elements: tuple[Element, ...] = Field(min_length=1)
    counts: dict[Family, Annotated[int, Field(ge=0)]]
    """How many base structures of each family."""
    orders: dict[Literal["pure", "random", "ordered", "ternary"], Fraction] = {
        "pure": 0.15,
        "random": 0.4,
        "ordered": 0.3,
        "ternary": 0.15,
    }
    """Shares of pure metals, random and ordered binaries, random ternaries."""
    adsorbates: dict[Literal["clean", "O", "OH"], Fraction] = {
        "clean": 0.25,
        "O": 0.45,
        "OH": 0.3,
    }
    molecules: dict[Literal["H2O", "H2", "O2"], Annotated[int, Field(ge=0)]] = {}
    """How many isolated molecules, each stretched and rattled."""
    strain: Fraction = 0.035
    """Lattice constants are drawn within ± this of Vegard's."""
    vacuum: float = Field(default=12.0, ge=8.0)
    lattice_constants: dict[Element, float] | None = None
    """Å of the fcc metals; computed with the teacher where left out."""


class Recipe(Section):
    """A whole recipe: where structures come from and what is made of them."""

    seed: int = 0
    generate: Alloys | None = None
    variants: Variants = Variants()
    bulk_variants: Variants | None = None
    """For bulks and molecules; as `variants` where left out."""
    largest_force: float = Field(default=15.0, gt=0)
    """eV/Å; frames whose labels exceed it are dropped."""


def default_recipe(with_teacher: bool) -> Recipe:
    """Return what is made of structures that come without a recipe."""
    if not with_teacher:
        return Recipe(variants=Variants(strain=Strain()))
    return Recipe(variants=Variants(strain=Strain(), relax=Relax(), thermal=Thermal()))


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a YAML file; a misspelt key is refused with its path."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read the recipe {path}: {reason}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a recipe; expected a YAML mapping")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ConfigError(f"{path}, {where}: {first['msg']}") from error
