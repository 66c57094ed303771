"""Tokenisers, input layouts and the token store: everything between text and model input."""
