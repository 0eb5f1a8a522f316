"""Scores of a model on published adsorption energies, as CatBench defines them."""
