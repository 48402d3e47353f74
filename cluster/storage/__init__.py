"""Files and folders on disk and in object stores, written whole or not at all."""
