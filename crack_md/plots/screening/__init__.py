"""The report of a screening: one page that opens anywhere, without a network."""
