"""Building a dataset from videos, in parallel and resumably."""
