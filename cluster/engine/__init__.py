"""One training engine for one process or many: plain, DDP and DeepSpeed ZeRO, with the same state on disk."""
