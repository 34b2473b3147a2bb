"""The command line: ``equipoise COMMAND``, or ``python dev.py COMMAND`` in a clone.

Begin at ``main``.
"""
