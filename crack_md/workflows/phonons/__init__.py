"""Phonons of crystals by phonopy, and vibrations of adsorbates on a surface."""
