"""Workflows with a force field, each in its folder; the files of each stay there.

Every workflow reads ``verb(atoms, calculator, *, ...) -> FrozenResult`` and knows ASE
and NumPy only, so a student, its teacher, EMT and DFT run the same code.
"""
