"""Summary, verification and repair of datasets."""
