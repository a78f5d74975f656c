"""Benchmarks: single fits beside other packages, throughput through the job, one long panel."""
