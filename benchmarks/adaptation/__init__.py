"""Avatars: their quality, and what an adaptation takes."""
