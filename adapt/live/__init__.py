"""An avatar that answers while one speaks: the session, the local server and its page."""
