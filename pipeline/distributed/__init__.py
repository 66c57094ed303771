"""Ray: shard pools on Ray Data, the Ray Train launcher, node checks. The only room that imports it."""
