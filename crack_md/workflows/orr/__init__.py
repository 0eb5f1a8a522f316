"""The oxygen reduction reaction: gas references, constants, free energies, potentials."""
