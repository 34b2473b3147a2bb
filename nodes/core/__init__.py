"""What all nodes share: socket types, groups of inputs, and what a node shows on itself.

Begin at ``sockets``, then ``inputs``.
"""
