"""Representation entropy and spectrum through the full d x d matrices."""

import math

import numpy as np


def representation_entropy(z, eps=0.1):
    unit = np.array([row / np.linalg.norm(row) for row in z if np.linalg.norm(row) > 0])
    if len(unit) == 0:
        return math.nan
    n, d = unit.shape
    _, log_det = np.linalg.slogdet(np.eye(d) + d / (n * eps**2) * unit.T @ unit)
    return log_det / (d * math.log(1 + 1 / eps**2))


def spectrum(z):
    """All d shares of variance, largest first."""
    covariance = sum(np.outer(row - z.mean(0), row - z.mean(0)) for row in z) / len(z)
    lam = np.linalg.eigvalsh(covariance)[::-1].clip(min=0)
    return lam / lam.sum()


def spectral_entropy(z):
    return -sum(x * math.log(x) for x in spectrum(z) if x > 0) / math.log(z.shape[1])
