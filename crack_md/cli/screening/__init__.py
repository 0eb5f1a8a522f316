"""Commands about surfaces: screen, rank, report."""
