"""Consent, withdrawal, and the removal of a person."""
