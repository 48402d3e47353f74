"""Videos into a dataset, in parallel, resumable."""
