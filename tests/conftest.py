"""For every test."""

from hypothesis import HealthCheck, settings

# Machines are shared: a deadline or a slow start of the generator would measure the neighbours.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
