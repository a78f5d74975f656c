"""Response curves of a continuous treatment: balancing weights and the regressions they enter."""
