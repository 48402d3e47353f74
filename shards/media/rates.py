"""The rates that everything of ours is in, pictures and samples a second, and how far sound may be from its pictures."""

FPS = 25  # pictures a second of samples, tracks and output
SAMPLE_RATE = 16_000  # Hz, mono sound of samples and features
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
MOST_OFFSET = 2.0  # s between pictures and sound, beyond which a number is taken for a mistake
