"""Models: EquiformerV2 with gradient or direct forces, and how it is stored."""
