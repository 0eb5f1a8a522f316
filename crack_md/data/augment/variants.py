"""Which frames a recipe makes of each base structure, and how far they reach."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from crack_md.section import Section

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
