"""Training: losses, the loop, and what is measured of a student."""
