"""What all charts share: style, curves, contact sheets, histograms, and a stand-in without matplotlib.

Begin at ``style``.
"""
