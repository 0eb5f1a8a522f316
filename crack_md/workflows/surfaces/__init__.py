"""Slabs, adsorption sites, adsorbates, and the outcome of their relaxation."""
