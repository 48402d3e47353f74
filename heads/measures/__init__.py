"""Measures of images and of faces."""
