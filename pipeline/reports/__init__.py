"""Tables and texts from evaluations."""
