"""Heads in formats that other programs open: one module per format, chosen by the file's suffix."""

from adapt.avatar.export.cloud import Cloud
from adapt.avatar.export.registry import format_of, formats
from adapt.avatar.export.sequence import write_frames

__all__ = ["Cloud", "format_of", "formats", "write_frames"]
