"""One person's head as a module: inputs, appearance basis, residuals, backdrop and inpainter."""
