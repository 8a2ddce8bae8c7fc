"""Watching the pipeline: its figures, what is wrong with its operation, and who is told."""
