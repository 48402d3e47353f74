"""The MLflow model registry and the log of a run."""
