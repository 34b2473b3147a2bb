"""How long tests wait for another process."""

PATIENCE = 3_600.0
"""Seconds after which a process hangs. On a busy machine everything may take long, so no test states a shorter limit of its own."""
