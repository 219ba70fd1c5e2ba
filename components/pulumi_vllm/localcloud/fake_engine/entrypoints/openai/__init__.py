"""The OpenAI server of the stand-in."""
