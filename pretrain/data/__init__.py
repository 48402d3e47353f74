"""Data code that the priors share: audible samples, sequences of segments, splits, statistics, prefetching."""
