"""Comparison of Langevin chains of a model with frames sampled by a reference.

Chains of the model at the temperature of the reference, their distributions beside
those of the reference, and a verdict: PASS, FAIL or INCONCLUSIVE.
"""
