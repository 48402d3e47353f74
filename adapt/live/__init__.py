"""An avatar that speaks live: the session, the local server and its page."""
