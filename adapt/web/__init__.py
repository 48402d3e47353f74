"""An avatar as a folder of static files that a browser opens: its numbers, and a page that speaks without Python."""
