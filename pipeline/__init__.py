"""Dense retrieval and re-ranking the RocketQA way, stage by stage, on Ray."""

__version__ = "0.1.0"
