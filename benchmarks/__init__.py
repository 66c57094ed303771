"""Measurements against peers; each module is one command (`python -m benchmarks.<name>`)."""
