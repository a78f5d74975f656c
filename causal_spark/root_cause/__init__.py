"""Root causes: a causal graph with a mechanism per node, and what outliers and changes are attributed to.

Pure functions of arrays: no Spark, no files.
"""
