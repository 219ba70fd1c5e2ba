"""How an instance is provisioned and terminated, and how units on it are run."""
