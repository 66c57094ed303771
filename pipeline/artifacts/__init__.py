"""Artifacts: kinds, storage, manifests and locks. The only room that touches artifact files."""
