"""Makes what ships: drawn portraits, captions, and the trainings of the small models.

Begin at ``cmd_train_portraits``. The registry's archive leaves this folder out.
"""
