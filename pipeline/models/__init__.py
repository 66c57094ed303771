"""Encoders: obtaining base models, dual encoder, cross-encoder, batched inference, export."""
