"""A model hub that the Hugging Face client can download from."""
