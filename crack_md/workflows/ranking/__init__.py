"""The ranking of a screening under uncertainty, calibrated and re-scored."""
