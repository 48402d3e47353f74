"""One training engine for one process or many: plain, DDP and DeepSpeed ZeRO, with one kind of state on disk."""
