"""The papers' mathematics: pure functions over arrays and tensors, no files, no Ray, no models."""
