"""What the priors' views share: audible samples, sequences of segments."""
