"""Small estimators that read a series once, value by value, and keep their state as plain JSON.

Every module is one idea written as ``init`` / ``update`` / ``value`` (and ``merge`` where parts can be put together):
``moments`` mean and variance, ``autoregression`` the lag-one coefficient, ``scale`` robust spread, ``trend`` a straight
line with forgetting.
"""
