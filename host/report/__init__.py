"""What a fairness report needs of ComfyUI: networks that read images, and the queued graph.

Begin at ``gather``.
"""
