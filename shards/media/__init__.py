"""Video and sound files in and out; the only home of PyAV."""
