"""Distribution guidance (Balancing Act, CVPR 2024): moves in h-space, their fits and calibration.

Begin at ``run``; ``fit_moves`` makes moves, ``calibrate`` sizes them. Moves are kept in ADP files.
"""
