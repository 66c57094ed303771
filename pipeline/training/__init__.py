"""Training: one loop, its objectives, resumable batches; in one process or many, without Ray."""
