"""Long runs against the pipeline: random histories, and kills at random moments (``python -m tests.soak``)."""
