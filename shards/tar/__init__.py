"""Tar shards: written, streamed and rewritten."""
