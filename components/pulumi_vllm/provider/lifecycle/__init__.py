"""How a machine is provisioned and terminated, and how units on it are run."""
