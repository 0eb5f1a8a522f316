"""Relaxation of one structure and of many, and the store that keeps the results."""
