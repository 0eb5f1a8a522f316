"""Adsorbates by name, molecule or file: which atom binds, and where they start."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances

from crack_md.errors import ConfigError
from crack_md.workflows.orr import gas_molecules
from crack_md.workflows.surfaces.sites import Site
from crack_md.workflows.surfaces.slab import Slab

AXIAL_A = 0.1
"""An adsorbate narrower than this looks the same from all sides."""


@dataclass(frozen=True, eq=False)
class Adsorbate:
    """A species and its atoms around the one that binds."""

    name: str
    atoms: Atoms
    """The first atom binds and lies at the origin; the surface is below."""
    is_optional: bool = False
    """Left to scaling relations where the limits of the model do not hold it."""

    @property
    def binding(self) -> str:
        """Return the symbol of the atom that binds."""
        return str(self.atoms.symbols[0])

    @property
    def composition(self) -> dict[str, int]:
        """Return how many atoms of each element it has."""
        return dict(Counter(str(symbol) for symbol in self.atoms.symbols))

    @property
    def reference(self) -> dict[str, float]:
        """Return the gas molecules it is made of: O is H2O - H2."""
        return gas_molecules(self.composition)

    @property
    def is_axial(self) -> bool:
        """Return whether turning it about the surface normal changes nothing."""
        width = np.hypot(self.atoms.positions[:, 0], self.atoms.positions[:, 1])
        return bool((width < AXIAL_A).all())

    @property
    def key(self) -> str:
        """Return what tells it from others of its name: a hash of its geometry."""
        if self.name in ADSORBATES:
            return self.name
        geometry = np.round(self.atoms.positions, 4) + 0.0
        text = f"{self.atoms.numbers.tolist()}{geometry.tolist()}"
        return f"{self.name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


# O-H 0.98 and O-O 1.44 Å, O-O-H 101°. OH leans, because an upright one would stay
# upright by symmetry where it would rather lie.
ADSORBATES: Mapping[str, Adsorbate] = MappingProxyType(
    {
        "O": Adsorbate("O", Atoms("O")),
        "OH": Adsorbate("OH", Atoms("OH", [[0, 0, 0], [0.69, 0, 0.69]])),
        "OOH": Adsorbate(
            "OOH", Atoms("O2H", [[0, 0, 0], [1.18, 0, 0.82], [0.79, 0, 1.72]])
        ),
    }
)


ORR = "orr"
"""Stands for all intermediates of oxygen reduction."""


def parse_adsorbates(text: str) -> tuple[Adsorbate, ...]:
    """Return the adsorbates in ``O,OH,CO:C,mine.xyz:0``, each once.

    ``orr`` is O, OH, and OOH where the limits of the model hold it.

    Raises:
        ConfigError: one is unknown, cannot be read, or does not say which atom binds.
    """
    names = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ConfigError("no adsorbate given; expected for instance O or O,OH,OOH")
    adds_peroxyl = ORR in names and "OOH" not in names
    if ORR in names:
        expanded = (ADSORBATES if name == ORR else (name,) for name in names)
        names = dict.fromkeys(name for each in expanded for name in each)
    adsorbates = tuple(
        replace(adsorbate_named(name), is_optional=adds_peroxyl and name == "OOH")
        for name in names
    )
    repeated = [n for n, c in Counter(a.name for a in adsorbates).items() if c > 1]
    if repeated:
        raise ConfigError(
            f"several adsorbates are called {', '.join(repeated)}; screen them one by "
            "one, or rename the file"
        )
    return adsorbates


def adsorbate_named(text: str) -> Adsorbate:
    """Return O, OH, OOH, an element, a molecule that ASE knows, or one from a file.

    Args:
        text: the name or file, with the atom that binds after a colon: ``CO:C`` by
            element, ``CH3OH:1`` by number, from 0.

    Raises:
        ConfigError: as `parse_adsorbates`.
    """
    if text in ADSORBATES:
        return ADSORBATES[text]
    source, _, binding = text.rpartition(":") if ":" in text else (text, "", "")
    atoms, name = _species(source)
    index = _binding_atom(atoms, binding, name)
    adsorbate = Adsorbate(name, _upright(atoms, index))
    gas_molecules(adsorbate.composition)  # refuses elements that have no reference
    return adsorbate


def _species(source: str) -> tuple[Atoms, str]:
    if source in ADSORBATES:
        return ADSORBATES[source].atoms.copy(), source
    if source in g2.names:
        return molecule(source), source
    if source in atomic_numbers and source != "X":
        return Atoms(source), source
    path = Path(source)
    if path.suffix and path.exists():
        try:
            atoms = ase.io.read(path)
            assert isinstance(atoms, Atoms)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(
                f"cannot read the adsorbate '{path}': {reason}"
            ) from error
        if len(atoms) == 0:
            raise ConfigError(f"the adsorbate '{path}' has no atoms")
        return Atoms(atoms.numbers, atoms.positions), path.stem
    raise ConfigError(
        f"unknown adsorbate '{source}'; expected {', '.join(ADSORBATES)}, {ORR} (all "
        "three, the last one where the model's limits hold it), an element, "
        "a molecule that ASE knows with the atom that binds (CO:C), or a structure "
        "file (mine.xyz:0)"
    )


def _binding_atom(atoms: Atoms, binding: str, name: str) -> int:
    """Return the index of the atom that binds."""
    symbols = [str(symbol) for symbol in atoms.symbols]
    shown = ", ".join(f"{index} {symbol}" for index, symbol in enumerate(symbols))
    if not binding and len(set(symbols)) == 1:
        return 0
    if binding.isdigit() and int(binding) < len(symbols):
        return int(binding)
    if symbols.count(binding) == 1:
        return symbols.index(binding)
    if not binding:
        reason = f"which atom of {name} binds? Say it after a colon"
    else:
        reason = f"'{binding}' does not name one atom of {name}"
    raise ConfigError(f"{reason}; its atoms are {shown}: for instance {name}:0")


def _upright(atoms: Atoms, index: int) -> Atoms:
    """Return the molecule with its binding atom first, at the origin, others above."""
    order = [index, *(other for other in range(len(atoms)) if other != index)]
    upright = Atoms(atoms.numbers[order], atoms.positions[order])
    upright.positions -= upright.positions[0]
    if len(upright) > 1:
        middle = upright.positions[1:].mean(axis=0)
        # A center of a flat or round molecule has no side to turn up.
        if np.linalg.norm(middle) > AXIAL_A:
            upright.rotate(middle, "z")
    return upright


ADSORBATE_TAG = 2
"""OC20's."""
CLEARANCE_SCALE = 0.8
"""Atoms that do not bind start no nearer than this times the covalent radii."""
LIFT_A, MOST_LIFTS = 0.1, 40
WOBBLE_DEG = 20.0
"""Random placements lean by up to this, as OC20's do."""


@dataclass(frozen=True, eq=False)
class Placement:
    """One structure that a relaxation starts from."""

    adsorbate: Adsorbate
    site: Site
    azimuth_deg: int | None = None
    """Turn about the surface normal; 0 leans towards the nearest atom of the site.
    None where turning changes nothing."""
    seed: int | None = None
    """What random placements were drawn from."""
    others: tuple[Site, ...] = ()
    """Further sites that hold one more of the adsorbate each."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return all sites that hold one."""
        return (self.site, *self.others)

    @property
    def label(self) -> str:
        """Return the labels of its sites: ``fcc``, ``fcc#1 + fcc#4``."""
        return " + ".join(site.label for site in self.sites)

    @property
    def key(self) -> str:
        """Return what names this start among all of the slab, in every run."""
        turn = "" if self.azimuth_deg is None else f" turned {self.azimuth_deg}"
        drawn = "" if self.seed is None else f" seed {self.seed}"
        return f"{self.adsorbate.key} on {self.label}{turn}{drawn}"


def site_starts(
    adsorbate: Adsorbate, sites: Sequence[Site], *, orientations: int
) -> Iterator[Placement]:
    """Yield every site with the adsorbate turned evenly about the surface normal."""
    turns = 1 if adsorbate.is_axial else orientations
    for site in sites:
        for number in range(turns):
            turn = None if adsorbate.is_axial else round(360 * number / turns)
            yield Placement(adsorbate, site, turn)


def random_starts(
    adsorbate: Adsorbate, sites: Sequence[Site], *, seed: int
) -> Iterator[Placement]:
    """Yield every random place with the adsorbate turned at random."""
    for number, site in enumerate(sites, start=1):
        turn = None
        if not adsorbate.is_axial:
            turn = int(np.random.default_rng([seed, number, 1]).integers(360))
        yield Placement(adsorbate, site, turn, seed)


def place(slab: Slab, start: Placement, *, relaxed: Atoms) -> Atoms:
    """Return ``relaxed`` with the adsorbate where it starts; its atoms come last.

    The site was found on the slab as given; it rides along with its contacts, which
    the relaxation of the clean slab has moved. The adsorbate takes OC20's tag 2.
    """
    combined = relaxed.copy()
    combined.calc = None
    for site in start.sites:
        contacts = list(site.contacts)
        moved = relaxed.positions[contacts] - slab.atoms.positions[contacts]
        adsorbate = _orient(replace(start, site=site), slab)
        adsorbate.translate(site.position + moved.mean(axis=0))
        _lift(adsorbate, relaxed)
        adsorbate.set_tags(ADSORBATE_TAG)
        combined += adsorbate
    return combined


def _orient(start: Placement, slab: Slab) -> Atoms:
    adsorbate = start.adsorbate.atoms.copy()
    if len(adsorbate) == 1:
        return adsorbate
    if start.seed is not None:
        number = int(start.site.label.rpartition("-")[2])
        lean = np.random.default_rng([start.seed, number, 2]).uniform(-1, 1, size=2)
        adsorbate.rotate(WOBBLE_DEG * lean[0], "x")
        adsorbate.rotate(WOBBLE_DEG * lean[1], "y")
    if start.azimuth_deg is not None:
        adsorbate.rotate(_direction_deg(start.site, slab) + start.azimuth_deg, "z")
    return adsorbate


def _direction_deg(site: Site, slab: Slab) -> float:
    """Return the angle from x to the nearest surface atom beside the site.

    The heavier of two atoms equally near decides, so that the choice turns with the
    slab.
    """
    a, b = slab.atoms.cell.array[:2]
    shifts = np.array([i * a + j * b for i in (-1, 0, 1) for j in (-1, 0, 1)])
    atoms = slab.atoms[slab.surface]
    images = (atoms.positions[None] + shifts[:, None] - site.position).reshape(-1, 3)
    numbers = np.tile(atoms.numbers, len(shifts))
    distance = np.linalg.norm(images[:, :2], axis=1)
    angle = np.degrees(np.arctan2(images[:, 1], images[:, 0]))
    beside = np.flatnonzero(distance > 0.3)
    order = np.lexsort(
        (
            np.round(angle[beside]) % 360,
            -numbers[beside],
            np.round(distance[beside], 1),
        )
    )
    return float(angle[beside[order[0]]])


def _lift(adsorbate: Atoms, substrate: Atoms) -> None:
    """Raise a molecule, in place, until only its binding atom touches the slab."""
    if len(adsorbate) == 1:
        return
    nearest = CLEARANCE_SCALE * (
        covalent_radii[adsorbate.numbers[1:], None] + covalent_radii[substrate.numbers]
    )
    for _ in range(MOST_LIFTS):
        _, distances = get_distances(
            adsorbate.positions[1:],
            substrate.positions,
            cell=substrate.cell,
            pbc=substrate.pbc,
        )
        if (distances >= nearest).all():
            return
        adsorbate.positions[:, 2] += LIFT_A
