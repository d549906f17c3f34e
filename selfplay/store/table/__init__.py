"""The Delta tables of a corpus and their log: writing, committing, repairing, maintaining, and reading one version."""
