"""Where training functions run: in this process, on a private Ray, or on a Ray cluster."""
