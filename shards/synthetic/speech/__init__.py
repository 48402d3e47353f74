"""How synthetic talkers speak: words, mouth shapes, voice."""
