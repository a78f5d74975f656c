"""Causal effects where the data lives: Spark jobs that estimate and write what they find to Delta Lake."""

__version__ = "0.1.0"
