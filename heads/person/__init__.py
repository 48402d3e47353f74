"""One person's head as a module: inputs, appearance, residuals, backdrop and inpainter."""
