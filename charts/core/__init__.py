"""Parts that all charts share: style, curves, contact sheets, histograms, and a notice in place of charts without matplotlib.

Begin at ``style``.
"""
