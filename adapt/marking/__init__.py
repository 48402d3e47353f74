"""Marks synthetic output: watermark, signature, visible label, and the detector that reads them."""
