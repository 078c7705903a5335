"""Small training runs whose transitions are known, recorded with the monitor on, and scored.

``suite`` is the table of runs, ``record`` trains one, ``truth`` says what happened in it by written rules that never
look at the readings, ``replay`` folds a recording into the live detector again, ``matching`` compares.
"""
