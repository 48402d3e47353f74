"""Reading and writing video and sound files; the only place that uses PyAV."""
