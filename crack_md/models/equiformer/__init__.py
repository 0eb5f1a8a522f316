"""EquiformerV2, written for speed, equal in function to the public one."""
