"""Avatars: one person's clip adapted within a budget, made to talk, measured and exported."""
