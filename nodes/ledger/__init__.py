"""Nodes that keep a balance over a queue of runs.

Begin at ``balance_ledger``. Ledgers lie in user/equipoise/ledgers.
"""
