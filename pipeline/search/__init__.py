"""Exact top-k search over embeddings, and BM25."""
