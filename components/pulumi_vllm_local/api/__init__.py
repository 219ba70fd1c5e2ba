"""A simulated rental API like that of Spheron: offers, keys, deployments and volumes on a virtual clock."""
