"""Screening of surfaces: plan, relaxations, ranking by potential, tables."""
