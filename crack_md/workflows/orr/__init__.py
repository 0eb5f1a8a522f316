"""Oxygen reduction: gas references, constants, free energies, potentials."""
