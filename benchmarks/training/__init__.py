"""Reading of shards, training steps, launches and clusters."""
