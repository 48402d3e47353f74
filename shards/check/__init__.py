"""What a dataset holds, and the proof that all of it is right."""
