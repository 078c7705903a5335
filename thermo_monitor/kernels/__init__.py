"""The same signatures as in ``physics``, faster on a GPU; they answer to ``physics`` in the tests.

Needs triton, which comes with torch for CUDA; nothing here is imported unless it is asked for.
"""
