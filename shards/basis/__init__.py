"""The rig's bases learned from tracked people."""
