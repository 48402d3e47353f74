"""The demo: the whole pipeline on this machine, and its report page."""
