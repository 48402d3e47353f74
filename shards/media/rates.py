"""The rates that everything of ours is in: pictures and samples a second."""

FPS = 25  # pictures a second of samples, tracks and output
SAMPLE_RATE = 16_000  # Hz, mono sound of samples and features
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
