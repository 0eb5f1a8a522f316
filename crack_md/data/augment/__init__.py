"""Structures to train on and frames of them, without labels."""
