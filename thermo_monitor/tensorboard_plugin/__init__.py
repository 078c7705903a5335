"""The tab in TensorBoard: a reader of logs, without torch.

``loader`` is all that TensorBoard imports to find the tab. ``plugin`` answers requests; what it answers is made by pure
functions over TensorBoard's data provider: ``listing`` (what is there), ``curves``, ``events``, ``frames``, ``plain``
(logs that never met the monitor). ``static`` is the page.
"""
