"""Energies of gas molecules, which adsorption energies refer to."""

from ase.build import molecule
from ase.optimize import BFGS

from crack_md.errors import CrackError
from crack_md.models.teachers import Teacher, TeacherCalculator

GASES = ("H2O", "H2")


def gas_references(teacher: Teacher) -> dict[str, float]:
    """Return energies in eV of relaxed H2O and H2, where the teacher knows them.

    A molecule that falls apart or does not come to rest has no reference.
    """
    references = {}
    for name in GASES if teacher.energy_reference == "total" else ():
        atoms = molecule(name)
        if teacher.elements is not None and not teacher.elements.issuperset(
            atoms.numbers.tolist()
        ):
            continue
        atoms.calc = TeacherCalculator(teacher)
        try:
            rests = BFGS(atoms, logfile=None).run(fmax=0.005, steps=100)
        except CrackError:
            continue
        if rests:
            references[name] = float(atoms.get_potential_energy())
    return references
