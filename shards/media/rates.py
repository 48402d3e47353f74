"""The frame rate and sample rate that the whole project uses, and the largest offset of sound."""

FPS = 25  # frames per second of samples, tracks and output
SAMPLE_RATE = 16_000  # Hz, mono sound of samples and features
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
MOST_OFFSET = 2.0  # s between pictures and sound; a larger value is taken for a mistake
