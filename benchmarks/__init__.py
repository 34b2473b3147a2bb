"""Benchmarks, ``python dev.py bench NAME``, and reference code that only they and tests need.

Results that documents quote are kept in ``results/``. The registry's archive leaves this folder out.
"""
