"""Configuration of `crack-md augment`: which structures, and which frames of each."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crack_md.data.augment.crystals import SIZES
from crack_md.input_files import Element, Section, read_section

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Length = Annotated[float, Field(gt=0.0)]


class Variant(Section):
    """What all variants share."""

    share: Fraction = 1.0
    """Part of the structures that get this variant."""


class Displacement(Variant):
    """Frames made without a teacher; each draws from the ranges anew."""

    frames: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for low, high in (("smallest", "largest"), ("nearest", "farthest")):
            if hasattr(self, low) and getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} {getattr(self, low):g} exceeds {high} "
                    f"{getattr(self, high):g}"
                )
        return self


class Given(Displacement):
    """The structure as it is."""


class Rattle(Displacement):
    """Independent displacements of all atoms."""

    frames: int = Field(default=4, ge=1)
    smallest: Length = 0.02
    """Å, standard deviation per coordinate; log-uniform in between."""
    largest: Length = 0.25


class Strain(Displacement):
    """Homogeneous strain of the cell, with a small rattle."""

    frames: int = Field(default=2, ge=1)
    largest: float = Field(default=0.05, gt=0, lt=0.5)
    """Strain components are drawn from ± this, along periodic directions only."""
    rattle: float = Field(default=0.05, ge=0)


class Scale(Displacement):
    """All distances scaled by one factor: hydrostatic compression and tension."""

    smallest: float = Field(default=0.85, gt=0)
    largest: float = Field(default=1.12, gt=0)
    rattle: float = Field(default=0.02, ge=0)


class Shear(Displacement):
    """Simple shear of one pair of axes, which keeps the volume."""

    largest: float = Field(default=0.12, gt=0, lt=0.5)
    """The shear is drawn from ± this."""
    rattle: float = Field(default=0.02, ge=0)


class Vacancy(Displacement):
    """One metal atom taken out."""

    atoms: int = Field(default=8, ge=2)
    """A bulk cell with fewer metal atoms than this is repeated first; a slab with fewer
    gives no such frame."""
    rattle: float = Field(default=0.05, ge=0)


class Hot(Displacement):
    """Displacements of a hot crystal, partly shared by neighbors, and expansion."""

    smallest: Length = 0.12
    """Å, standard deviation per coordinate; 0.15 to 0.21 in Pt and Ag at 1,500 K."""
    largest: Length = 0.28
    correlation_length: Length = 3.0
    """Å over which displacements lose half of what they share."""
    expansion: float = Field(default=0.03, ge=0)
    """Cells are stretched by up to this factor minus one."""


class Push(Displacement):
    """The adsorbate pushed towards and into the surface."""

    nearest: Length = 0.3
    """Å between its lowest atom and the nearest metal atom; log-uniform."""
    farthest: Length = 1.7
    depth: float = Field(default=2.6, ge=0)
    """Å below the topmost metal atom to which half of the frames reach."""
    rattle: float = Field(default=0.03, ge=0)


class Pull(Displacement):
    """The adsorbate pulled off the surface."""

    farthest: Length = 5.0
    """Å above where it stood."""
    nearest: Length = 0.2
    rattle: float = Field(default=0.03, ge=0)


class Stretch(Displacement):
    """O-H, H-H and O-O bonds stretched or compressed, and turned."""

    nearest: Length = 0.6
    """Å, bond length of O-H; others are scaled alike."""
    farthest: Length = 1.8


class Contact(Displacement):
    """Two neighbors pressed together."""

    nearest: Length = 0.35
    """Their distance as a multiple of the present one; log-uniform."""
    farthest: Length = 0.9
    rattle: float = Field(default=0.02, ge=0)


class Relax(Variant):
    """Frames along a relaxation with the teacher, its end included."""

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


class Thermal(Variant):
    """Frames of a short Langevin run with the teacher.

    All atoms get the same mass: averages over positions do not depend on masses, and a
    heavy hydrogen allows a long time step.
    """

    steps: int = Field(default=24, ge=1)
    every: int = Field(default=4, ge=1)
    coldest_K: float = Field(default=300.0, gt=0)
    hottest_K: float = Field(default=800.0, gt=0)
    timestep_fs: float = Field(default=5.0, gt=0)
    mass_u: float = Field(default=30.0, gt=0)
    friction_per_ps: float = Field(default=20.0, ge=0)


class Variants(Section):
    """Which frames are made of each structure; leave one out to skip it.

    What a structure cannot give is skipped: pushed and pulled frames need an adsorbate
    on a slab, stretched ones a bond between O and H atoms, sheared and scaled ones a
    crystal.
    """

    given: Given | None = None
    rattle: Rattle | None = None
    strain: Strain | None = None
    scale: Scale | None = None
    shear: Shear | None = None
    vacancy: Vacancy | None = None
    hot: Hot | None = None
    push: Push | None = None
    pull: Pull | None = None
    stretch: Stretch | None = None
    contact: Contact | None = None
    relax: Relax | None = None
    thermal: Thermal | None = None


Family = Literal["fcc111", "fcc100", "fcc110", "fcc211", "hcp0001", "bulk"]
Order = Literal[
    "pure", "random", "ordered", "ternary", "L1_2", "L1_0", "skin", "sandwich"
]
Cell = Literal["1x1", "2x1", "root2", "root3", "2x2"]
Lattice = Literal["fcc", "hcp", "bcc"]
Adsorbate = Literal["clean", "O", "OH", "H", "O+O", "O+OH", "OH+OH"]
Molecule = Literal["H2O", "H2", "O2", "OH"]
Count = Annotated[int, Field(ge=0)]
NOT_IN: dict[Family, tuple[Order, ...]] = {
    "hcp0001": ("L1_2", "L1_0"),
    "bulk": ("skin", "sandwich"),
}
"""Orders that a family cannot have."""


class Alloys(Section):
    """Base structures of metals and alloys, clean and with adsorbates."""

    elements: tuple[Element, ...] = ()
    """Metals; none are needed for molecules alone."""
    partners: tuple[Element, ...] = ()
    """Where given, alloys are made of one of `elements`, the host, and one of these."""
    largest_share: dict[Element, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={}
    )
    """Largest part of the metal atoms that an element may have; 1 where left out."""
    most_dilute: int = Field(default=3, ge=1)
    """Largest number of atoms of an element that has a `largest_share`."""
    counts: dict[Family, Count] = Field(default={})
    """How many base structures of each family."""
    orders: dict[Order, Fraction] = Field(
        default={
            "pure": 0.15,
            "random": 0.4,
            "ordered": 0.3,
            "ternary": 0.15,
        }
    )
    """Shares of pure metals, random and ordered alloys, random ternaries."""
    cells: dict[Cell, Fraction] = Field(default={"2x2": 0.6, "root3": 0.2, "2x1": 0.2})
    """Shares of surface cells; a family draws among those that it has."""
    layers: tuple[Annotated[int, Field(ge=2, le=8)], ...] = Field(
        default=(3, 4, 4), min_length=1
    )
    """Numbers of layers that are drawn from."""
    most_atoms: int = Field(default=20, ge=2)
    """Metal atoms of a cell; larger ones are drawn again."""
    lattices: dict[Lattice, Fraction] = Field(default={"fcc": 0.7, "hcp": 0.3})
    """Shares of bulk crystal structures."""
    adsorbates: dict[Adsorbate, Fraction] = Field(
        default={
            "clean": 0.25,
            "O": 0.38,
            "OH": 0.25,
            "O+O": 0.05,
            "O+OH": 0.07,
        }
    )
    """A second adsorbate is left out where fewer than three atoms form the surface."""
    molecules: dict[Molecule, Count] = Field(default={})
    """How many isolated molecules."""
    strain: Fraction = 0.035
    """Lattice constants are drawn within ± this of Vegard's."""
    vacuum: float = Field(default=12.0, ge=8.0)

    @model_validator(mode="after")
    def _orders_exist(self) -> Self:
        if not any(self.counts.values()):
            return self
        if not self.elements:
            raise ValueError("counts of slabs and bulks take elements")
        for family, missing in NOT_IN.items():
            found = [name for name in missing if self.orders.get(name)]
            if found and self.counts.get(family):
                raise ValueError(f"{family} has no order {found[0]}")
        cells = {cell for cell, share in self.cells.items() if share}
        for family in (name for name, count in self.counts.items() if count):
            if family != "bulk" and not cells & set(SIZES[family]):
                raise ValueError(
                    f"none of the cells is one of {family}; expected one of "
                    f"{', '.join(SIZES[family])}"
                )
        several = [name for name in self.orders if name != "pure" and self.orders[name]]
        if several and len({*self.elements, *self.partners}) < 2:
            raise ValueError(f"order {several[0]} takes at least two elements")
        return self


class Dimers(Section):
    """Pairs of atoms in an empty box, for distances shorter than any solid has."""

    elements: tuple[Element, ...] = Field(min_length=1)
    """Every pair of these, and of each with O and H."""
    per_pair: int = Field(default=4, ge=1)
    per_adsorbate_pair: int = Field(default=6, ge=1)
    """For pairs with O or H."""
    nearest: Length = 0.3
    """Å; distances are spread log-uniformly in between."""
    farthest: Length = 4.0


class Part(Section):
    """Structures that share their variants."""

    generate: Alloys | None = None
    dimers: Dimers | None = None
    variants: Variants | None = None
    """As the recipe's where left out."""
    bulk_variants: Variants | None = None
    """For bulks and molecules; as the recipe's, then as `variants`, where left out."""


class Recipe(Section):
    """A whole recipe: where structures come from and what is made of them."""

    seed: int = 0
    generate: Alloys | None = None
    parts: dict[str, Part] = Field(default={})
    """Several kinds of structures, mixed evenly."""
    lattice_constants: dict[Element, Length] = Field(default={})
    """Å of the fcc metals; computed with the teacher where left out."""
    variants: Variants = Variants(rattle=Rattle())
    bulk_variants: Variants | None = None
    """For bulks and molecules; as `variants` where left out."""
    largest_force: float = Field(default=15.0, gt=0)
    """eV/Å; frames whose labels exceed it are dropped."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.generate is not None and self.parts:
            raise ValueError("give either 'generate' or 'parts', not both")
        return self

    def all_parts(self) -> dict[str, Part]:
        """Return the parts of the recipe, each with its variants filled in."""
        parts = self.parts
        if self.generate is not None:
            parts = {"generate": Part(generate=self.generate)}
        return {
            name: part.model_copy(
                update={
                    "variants": part.variants or self.variants,
                    "bulk_variants": part.bulk_variants
                    or self.bulk_variants
                    or part.variants
                    or self.variants,
                }
            )
            for name, part in parts.items()
        }

    def metals(self) -> tuple[str, ...]:
        """Return the elements whose lattice constants the structures take."""
        found: dict[str, None] = {}
        for part in self.all_parts().values():
            if part.generate is not None:
                found |= dict.fromkeys(part.generate.elements)
                found |= dict.fromkeys(part.generate.partners)
        return tuple(found)


def default_recipe(with_teacher: bool) -> Recipe:
    """Return what is made of structures that come without a recipe."""
    plain = Variants(rattle=Rattle(), strain=Strain())
    if not with_teacher:
        return Recipe(variants=plain)
    more = {"relax": Relax(), "thermal": Thermal()}
    return Recipe(variants=plain.model_copy(update=more))


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a YAML file; a misspelt key is refused with its path."""
    return read_section(path, Recipe, what="recipe")
