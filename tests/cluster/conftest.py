"""What the tests of this folder share."""

from tests.support.registries import empty_store, home

__all__ = ["empty_store", "home"]
