"""Marks synthetic output: watermark, signature, visible label, and the detector that reads them."""

from adapt.marking.certificates import load_credentials, sign_init
from adapt.marking.marker import Marker
from adapt.marking.sign import Claim, sign_file

__all__ = ["Claim", "Marker", "load_credentials", "sign_file", "sign_init"]
