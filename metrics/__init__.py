"""Measures with their uncertainty, in float64 on the CPU.

Begin at ``fairness``; ``resampling`` gives intervals.
"""
