"""Vibrations: phonons of crystals through phonopy, modes of adsorbates by ourselves."""
