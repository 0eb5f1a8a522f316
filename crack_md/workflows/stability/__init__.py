"""Whether a surface keeps its metals: formation, segregation, dissolution."""
