"""Marks synthetic output: watermark, signature, visible label, and the detector that reads them."""

from adapt.marking.certificates import load_credentials, sign_init
from adapt.marking.label import Label
from adapt.marking.sign import Claim, sign_file
from adapt.marking.watermark import Watermark

__all__ = ["Claim", "Label", "Watermark", "load_credentials", "sign_file", "sign_init"]
