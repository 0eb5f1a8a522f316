"""Does a model sample like the frames it should reproduce?

Chains of the model at the temperature of the reference, their distributions beside
those of the reference, and a verdict: PASS, FAIL or INCONCLUSIVE.
"""
