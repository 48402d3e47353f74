"""Exports, pages and marks."""
