"""Molecular dynamics with restarts that are exact to the last bit."""
