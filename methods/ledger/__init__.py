"""The balance ledger: assigned and seen classes over a queue of runs, in one SQLite file.

Begin at ``ledger``.
"""
