"""What a model refuses to be applied to, and why."""

import ase
import numpy as np
from ase.data import chemical_symbols

from crack_md.errors import StructureError
from crack_md.models.force_field import ForceField

OC20_ADSORBATE_ELEMENTS = frozenset({1, 6, 7, 8})
ADSORBATE_TAG = 2


def check_structure(atoms: ase.Atoms, model: ForceField) -> None:
    """Refuse structures that the model has no right to answer for.

    What no table of neighbors can be made of is refused where that is made.

    Raises:
        StructureError: elements unlike training, or no adsorbate for an
            adsorption-energy model.
    """
    known = set(model.metadata.elements)
    unknown = sorted(set(atoms.numbers.tolist()) - known)
    if unknown:
        raise StructureError(
            f"the model does not know {_symbols(unknown)}; it was trained on "
            f"{_symbols(sorted(known))}"
        )
    if model.metadata.energy_reference == "adsorption":
        _check_adsorbate(atoms)


def _check_adsorbate(atoms: ase.Atoms) -> None:
    """An adsorption energy needs both an adsorbate and something to adsorb on."""
    tags = atoms.get_tags()
    light = np.isin(atoms.numbers, list(OC20_ADSORBATE_ELEMENTS))
    # ASE's surface builders number layers from 1 in the same field: not OC20's tags.
    tagged = tags.any() and set(tags) <= {0, 1, 2} and light[tags == 2].all()
    if tagged:
        adsorbate, seen = tags == ADSORBATE_TAG, f"no atom with tag {ADSORBATE_TAG}"
    else:
        adsorbate, seen = light, "no H, C, N or O"
    if adsorbate.all():
        seen = "nothing but adsorbate"
    elif adsorbate.any():
        return
    raise StructureError(
        f"this model predicts adsorption energies, and {atoms.get_chemical_formula()} "
        f"has {seen}; bulks, clean slabs and molecules need a total-energy model"
    )


def _symbols(numbers: list[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in numbers)
