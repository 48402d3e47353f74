"""What the priors are measured against."""
