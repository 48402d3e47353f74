"""Heads in formats that other programs open: one module a format, chosen by the file's suffix."""

from adapt.export_formats.cloud import Cloud
from adapt.export_formats.registry import format_of, formats
from adapt.export_formats.sequence import write_frames

__all__ = ["Cloud", "format_of", "formats", "write_frames"]
