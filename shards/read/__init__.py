"""Opening datasets, planning the order of samples, and reading batches."""
