"""Logs read from their files, fast and without TensorBoard: for the command line, and for logs of any run.

``framing`` finds the records of an event file, ``follow`` reads what was added, ``text`` reads CSV and JSON lines,
``runs`` finds the runs below a directory; ``vectors`` and ``resume`` say what of it holds.
"""
