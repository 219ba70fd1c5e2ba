"""The OpenAI server of the fake engine."""
