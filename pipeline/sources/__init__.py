"""Readers of text collections: every format becomes one stream of passages, queries and labels."""
