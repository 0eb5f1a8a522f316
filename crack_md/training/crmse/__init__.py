"""CRMSE in training: bounds of chains, the chains themselves, and what sets λ."""
