"""What a label recipe says: which teachers, with what weights, for which structures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    model_validator,
)

from crack_md.errors import ConfigError
from crack_md.input_files import read_yaml
from crack_md.section import Element, Section


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
    content = read_yaml(path, what="a label recipe")
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a label recipe; expected a YAML mapping")
    try:
        return LabelRecipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ConfigError(f"{path}, {where}: {first['msg']}") from error
