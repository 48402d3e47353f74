"""An avatar as a folder of static files for a browser: its arrays, and a page that speaks without Python."""
