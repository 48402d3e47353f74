"""Writing, streaming, rewriting and salvaging tar shards."""
