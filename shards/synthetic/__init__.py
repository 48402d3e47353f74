"""Synthetic talkers: invented people with exact tracks, for the demo, tests and first steps without recordings."""

from shards.synthetic.generate import identity_seeds, make_talker, synthesize, synthetic_video

__all__ = ["identity_seeds", "make_talker", "synthesize", "synthetic_video"]
