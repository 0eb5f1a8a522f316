"""Commands that move atoms: relax, md, phonons, sample."""
