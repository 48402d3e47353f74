"""Marks synthetic output: watermark, signature, visible label, and the detector that reads them."""

from adapt.marking.certificates import load_credentials, sign_init
from adapt.marking.detect import detect
from adapt.marking.label import Label
from adapt.marking.sign import sign_file
from adapt.marking.watermark import Watermark

__all__ = ["Label", "Watermark", "detect", "load_credentials", "sign_file", "sign_init"]
