"""Rating cases, as files of inputs and expected results, tried against the real models in PostgreSQL."""
