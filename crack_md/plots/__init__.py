"""Figures made from result records."""
