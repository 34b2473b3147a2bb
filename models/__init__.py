"""Networks and their safetensors formats, on torch alone.

Begin at ``files``, which reads and writes all of them.
"""
