"""A label made of increments of several teachers, and the recipe that names them.

Teachers trained on data with a Hubbard U for some metals are wrong by electronvolts
where these metals and oxygen meet, and right elsewhere. So oxygen and hydrogen enter as
increments, each from the teachers that can be trusted for it:

    E = E_base(M) + Σ_t w_t [ E_t(all) − E_t(M) + n_O c_t,O + n_H c_t,H ]

M is the structure without its adsorbed atoms; forces, and energies of atoms, are the
same sums. c_t makes the increments of teacher t equal to those of the base teacher for
O* and OH* on a relaxed reference slab: what teachers disagree on there is mostly the
energy of free O and H. Constants belong to atoms, not to species, so that they do not
jump where a bond breaks. Structures without metal get the base teacher's labels alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from crack_md.errors import TeacherError
from crack_md.input_files import Element, Section, read_section
from crack_md.models.teachers.base import (
    Teacher,
    TeacherCalculator,
    TeacherLabels,
    check_elements,
)


def _sums_to_one(weights: dict[str, float]) -> dict[str, float]:
    if abs(sum(weights.values()) - 1) > 1e-6:
        raise ValueError(f"weights add up to {sum(weights.values()):g}, expected 1")
    return weights


Weights = Annotated[dict[str, float], AfterValidator(_sums_to_one)]


class Rule(Section):
    """Weights of the increments for structures with certain metals."""

    metals: tuple[Element, ...] = ()
    """The rule holds where one of these occurs; empty: always."""
    O: Weights  # noqa: E741 - the symbol of oxygen
    """Weights by teacher where oxygen has no hydrogen."""
    OH: Weights
    """Weights by teacher where every oxygen has its hydrogen, and for H alone."""
    spread: tuple[str, ...] = Field(min_length=1)
    """The teachers that can be trusted here; their spread is the error estimate."""


class ReferenceSystem(Section):
    """A slab on which the increments of all teachers are made equal."""

    metal: Element = "Pt"
    size: tuple[int, int, int] = (2, 2, 4)
    """Of a (111) slab of the fcc metal."""
    lattice_constant_A: float = Field(default=3.97, gt=0)
    fmax: float = Field(default=0.03, gt=0)
    """eV/Å, of its relaxation by the base teacher, two upper layers free."""


class LabelRecipe(Section):
    """A sum of increments of several teachers (`increments` has the formula)."""

    teachers: dict[str, str] = Field(min_length=1)
    """Short names, and what `load_teacher` takes."""
    base: str
    """The teacher of everything but adsorbed atoms."""
    features: str | None = None
    """The teacher whose node features are stored."""
    adsorbate_elements: tuple[Literal["O", "H"], ...] = ("O", "H")
    reference: ReferenceSystem = ReferenceSystem()
    rules: tuple[Rule, ...] = Field(min_length=1)
    """The first that holds counts; the last must hold always."""

    @model_validator(mode="after")
    def _names_are_known(self) -> "LabelRecipe":
        used = {self.base, *([] if self.features is None else [self.features])}
        for rule in self.rules:
            used |= {*rule.O, *rule.OH, *rule.spread}
        if unknown := sorted(used - set(self.teachers)):
            known = ", ".join(self.teachers)
            raise ValueError(f"no teacher is called '{unknown[0]}'; there are {known}")
        if self.rules[-1].metals:
            raise ValueError("the last rule names metals; structures without fit none")
        return self

    def rule_of(self, symbols: Sequence[str]) -> Rule:
        """Return the first rule that holds for a structure with these elements."""
        present = set(symbols)
        return next(
            rule
            for rule in self.rules
            if not rule.metals or present.intersection(rule.metals)
        )


def read_label_recipe(path: Path) -> LabelRecipe:
    """Return the recipe in a YAML file.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; says where.
    """
    return read_section(path, LabelRecipe, what="label recipe")


OH_BOND_A = 0.98


class IncrementTeacher:
    """Several teachers behind one label.

    Args:
        recipe: weights and reference system.
        teachers: by the names of the recipe.
        name: how datasets call the whole.

    Raises:
        TeacherError: A teacher has another energy than a total one, gives no features
            where the recipe wants them, or the reference slab does not relax.
    """

    energy_reference = "total"
    has_node_energy = True

    def __init__(
        self, recipe: LabelRecipe, teachers: Mapping[str, Teacher], *, name: str
    ) -> None:
        for key, teacher in teachers.items():
            if teacher.energy_reference != "total":
                raise TeacherError(
                    f"'{key}' of the label recipe has {teacher.energy_reference} "
                    "energies; increments need total ones"
                )
        if recipe.features and not teachers[recipe.features].has_features:
            raise TeacherError(
                f"'{recipe.features}' of the label recipe has no node features; "
                "choose another, or leave 'features' out"
            )
        self.recipe, self.teachers, self.name = recipe, dict(teachers), name
        self.has_features = recipe.features is not None
        prints = {key: teacher.sha256 for key, teacher in teachers.items()}
        content = json.dumps([_choices(recipe), prints], sort_keys=True)
        self.sha256 = hashlib.sha256(content.encode()).hexdigest()
        known = [t.elements for t in teachers.values() if t.elements is not None]
        self.elements: frozenset[int] | None = (
            frozenset.intersection(*known) if known else None
        )
        self.offsets = self._fit_offsets(recipe.reference)

    def predict(self, atoms: Sequence[Atoms]) -> list[TeacherLabels]:
        """Return energy, forces, features and each teacher's own value."""
        for one in atoms:
            check_elements(one, self)
        parts = [self._is_adsorbed(one) for one in atoms]
        # base energies of M; of molecules and clean structures these are all there is
        bases = [
            one if adsorbed.all() else one[~adsorbed]
            for one, adsorbed in zip(atoms, parts, strict=True)
        ]
        covered = [k for k, part in enumerate(parts) if part.any() and not part.all()]
        found = dict(
            enumerate(
                self.teachers[self.recipe.base].predict([_bare(b) for b in bases])
            )
        )
        increments = self._increments(atoms, bases, covered, found)
        features = self._features(atoms, found, increments)
        return [
            self._label(one, parts[k], found[k], increments.get(k), features[k])
            for k, one in enumerate(atoms)
        ]

    def _increments(
        self,
        atoms: Sequence[Atoms],
        bases: Sequence[Atoms],
        covered: Sequence[int],
        base_labels: Mapping[int, TeacherLabels],
    ) -> dict[int, dict[str, tuple[TeacherLabels, TeacherLabels]]]:
        """Return labels of all and of M by each teacher that a covered one needs."""
        result: dict[int, dict[str, tuple[TeacherLabels, TeacherLabels]]]
        result = {k: {} for k in covered}
        for key, teacher in self.teachers.items():
            wanted = [k for k in covered if key in self._asked(atoms[k])]
            full = teacher.predict([atoms[k] for k in wanted])
            if key == self.recipe.base:
                empty = [base_labels[k] for k in wanted]
            else:
                empty = teacher.predict([bases[k] for k in wanted])
            for k, whole, rest in zip(wanted, full, empty, strict=True):
                result[k][key] = (whole, rest)
        return result

    def _asked(self, atoms: Atoms) -> set[str]:
        """Return the teachers whose increments this structure needs."""
        rule = self.recipe.rule_of(atoms.get_chemical_symbols())
        own = set() if self.recipe.features is None else {self.recipe.features}
        return {*_weights(rule, atoms), *rule.spread} | own

    def _features(
        self,
        atoms: Sequence[Atoms],
        base_labels: Mapping[int, TeacherLabels],
        increments: Mapping[int, dict[str, tuple[TeacherLabels, TeacherLabels]]],
    ) -> list[NDArray[np.float32] | None]:
        """Return the node features of every structure; asked once per structure."""
        key = self.recipe.features
        if key is None:
            return [None] * len(atoms)
        rest = [k for k in range(len(atoms)) if k not in increments]
        if key == self.recipe.base:
            fresh = {k: base_labels[k] for k in rest}
        else:
            labels = self.teachers[key].predict([atoms[k] for k in rest])
            fresh = dict(zip(rest, labels, strict=True))
        return [
            (fresh[k] if k in fresh else increments[k][key][0]).node_features
            for k in range(len(atoms))
        ]

    def _label(
        self,
        atoms: Atoms,
        adsorbed: NDArray[np.bool_],
        base: TeacherLabels,
        increments: Mapping[str, tuple[TeacherLabels, TeacherLabels]] | None,
        features: NDArray[np.float32] | None,
    ) -> TeacherLabels:
        if increments is None:
            parts = {self.recipe.base: base.energy}
            return TeacherLabels(
                base.energy, base.forces, features, base.node_energy, parts=parts
            )
        symbols = atoms.get_chemical_symbols()
        rule = self.recipe.rule_of(symbols)
        weights = _weights(rule, atoms)
        forces, atomic = np.zeros((len(atoms), 3)), np.zeros(len(atoms))
        forces[~adsorbed] = base.forces
        atomic[~adsorbed] = _node_energy(base, self.recipe.base)
        own = {}
        for key, (full, empty) in increments.items():
            shift = sum(self.offsets[key].get(symbol, 0.0) for symbol in symbols)
            own[key] = base.energy + full.energy - empty.energy + shift
            if weight := weights.get(key, 0.0):
                forces += weight * full.forces
                forces[~adsorbed] -= weight * empty.forces
                atomic += weight * _node_energy(full, key)
                atomic[~adsorbed] -= weight * _node_energy(empty, key)
                constants = [self.offsets[key].get(symbol, 0.0) for symbol in symbols]
                atomic += weight * np.array(constants)
        energy = sum(weight * own[key] for key, weight in weights.items() if weight)
        trusted = [own[key] for key in rule.spread]
        return TeacherLabels(
            energy=float(energy),
            forces=forces,
            node_features=features,
            node_energy=atomic,
            parts=own,
            spread=float(np.std(trusted)) if len(trusted) > 1 else None,
        )

    def _is_adsorbed(self, atoms: Atoms) -> NDArray[np.bool_]:
        return np.isin(atoms.symbols, self.recipe.adsorbate_elements)

    def _fit_offsets(self, system: ReferenceSystem) -> dict[str, dict[str, float]]:
        """Return c of every teacher and element, in eV."""
        base = self.teachers[self.recipe.base]
        clean = _slab(system)
        metal = len(clean)
        increments: dict[str, dict[str, float]] = {}
        for species in ("O", "OH"):
            covered = clean.copy()
            site, height = ("fcc", 1.15) if species == "O" else ("ontop", 2.0)
            add_adsorbate(covered, "O", height, site)
            if species == "OH":
                lean = np.array([0.94, 0.0, 0.34]) * OH_BOND_A
                covered += Atoms("H", [covered.positions[-1] + lean])
            _relax(covered, base, system.fmax)
            bare = covered[:metal]
            increments[species] = {
                key: teacher.predict([covered])[0].energy
                - teacher.predict([bare])[0].energy
                for key, teacher in self.teachers.items()
            }
        offsets = {}
        for key in self.teachers:
            missing = {
                species: increments[species][self.recipe.base] - value[key]
                for species, value in increments.items()
            }
            offsets[key] = {"O": missing["O"], "H": missing["OH"] - missing["O"]}
        return offsets


def load_increment_teacher(
    path: Path | str, *, device: torch.device | str = "cpu"
) -> IncrementTeacher:
    """Return the teacher that a label recipe describes.

    Paths in the recipe are relative to the present folder, as in all recipes.
    """
    from crack_md.models.teachers import load_teacher

    recipe = read_label_recipe(Path(path))
    teachers = {
        key: load_teacher(spec, device=device) for key, spec in recipe.teachers.items()
    }
    return IncrementTeacher(recipe, teachers, name=f"recipe {Path(path).stem}")


def _weights(rule: Rule, atoms: Atoms) -> dict[str, float]:
    """Return the weights of a structure: those of O and of OH, by how many it has."""
    oxygen = int(np.count_nonzero(atoms.symbols == "O"))
    hydrogen = int(np.count_nonzero(atoms.symbols == "H"))
    share = 1.0 if oxygen == 0 else min(hydrogen / oxygen, 1.0)
    result: dict[str, float] = {}
    for weights, part in ((rule.O, 1 - share), (rule.OH, share)):
        for key, weight in weights.items():
            if part * weight:
                result[key] = result.get(key, 0.0) + part * weight
    return result


def _choices(recipe: LabelRecipe) -> dict[str, object]:
    """Return what decides labels: where the teachers' files lie does not."""
    return recipe.model_dump(mode="json", exclude={"teachers"})


def _node_energy(labels: TeacherLabels, key: str) -> NDArray[np.float64]:
    if labels.node_energy is None:
        raise TeacherError(f"'{key}' of the label recipe gives no energies of atoms")
    return labels.node_energy


def _bare(atoms: Atoms) -> Atoms:
    result = atoms.copy()
    result.info = {}
    return result


def _slab(system: ReferenceSystem) -> Atoms:
    slab = fcc111(
        system.metal,
        system.size,
        a=system.lattice_constant_A,
        vacuum=7.0,
        periodic=True,
    )
    fixed = slab.positions[:, 2] < np.median(slab.positions[:, 2])
    slab.set_constraint(FixAtoms(mask=fixed))
    return slab


def _relax(atoms: Atoms, teacher: Teacher, fmax: float) -> None:
    atoms.calc = TeacherCalculator(teacher)
    if not BFGS(atoms, logfile=None).run(fmax=fmax, steps=200):
        raise TeacherError(
            f"{atoms.get_chemical_formula()}, the reference of the label recipe, does "
            f"not relax to {fmax} eV/Å with {teacher.name} in 200 steps"
        )
