"""What all methods share: runs, rows of a call, targets, assignment, trials and the resumable trainer.

Begin at ``run``, then ``batch_run`` and ``assignment``.
"""
