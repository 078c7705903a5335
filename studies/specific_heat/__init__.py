"""Does the specific heat of attention peak before a model generalizes? All definitions, controls and null signals.

``grid`` says which runs, ``model`` and ``stacked`` train many of them at once, ``signals`` reads what may announce
something, ``protocol`` dates it, ``tables`` and ``figures`` show it, ``python studies/specific_heat/run.py`` does all.
"""
