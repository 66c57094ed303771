"""Shard pools on Ray Data, training on Ray Train, node checks: the only room that imports Ray."""
