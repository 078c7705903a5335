"""Attention logits and means per head with loops over every index."""

import numpy as np

from tests.reference import canonical


def logits(q, k, scale, bias=None, causal=False, mask=None):
    """q [B,H,Q,D], k [B,Hkv,K,D], bias and mask [B,H,Q,K]: logits and allowed keys."""
    batch, heads, queries, _ = q.shape
    share = heads // k.shape[1]
    z = np.zeros((batch, heads, queries, k.shape[2]))
    allowed = np.ones(z.shape, dtype=bool)
    for b, h, i, j in np.ndindex(z.shape):
        z[b, h, i, j] = scale * float(np.dot(q[b, h, i], k[b, h // share, j]))
        if bias is not None:
            z[b, h, i, j] += bias[b, h, i, j]
        allowed[b, h, i, j] = (not causal or j <= i) and (mask is None or mask[b, h, i, j])
    return z, allowed


def rows_of_heads(z, allowed, valid=None):
    """For each head the quantities of its rows with two or more keys."""
    out = []
    for h in range(z.shape[1]):
        rows = []
        for b in range(z.shape[0]):
            for i in range(z.shape[2]):
                row = canonical.row(z[b, h, i].tolist(), allowed[b, h, i].tolist())
                if row["n"] >= 2 and (valid is None or valid[b, i]):
                    rows.append(row)
        out.append(rows)
    return out
