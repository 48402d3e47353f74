"""How synthetic talkers are drawn: skin, light, hair, clothes and rooms, over a small z-buffer."""
