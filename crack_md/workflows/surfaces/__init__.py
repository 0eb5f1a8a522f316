"""Slabs, their surfaces, sites and adsorbates, and what a relaxation made of them."""
