"""What one does with a force field: relax, adsorb, screen.

Every workflow reads ``verb(atoms, calculator, *, ...) -> FrozenResult`` and knows ASE
and NumPy only, so a student, its teacher, EMT and DFT run the same code.
"""
