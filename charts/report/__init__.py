"""The fairness report as a picture and as one HTML file, and its parts.

Begin at ``report_page``.
"""
