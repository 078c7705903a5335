"""Geometry and first law of rows, straight from the definitions, one row at a time."""

import math

from tests.reference.canonical import probabilities


def distance(p, q):
    """2 arccos of the Bhattacharyya coefficient."""
    return 2 * math.acos(min(1.0, math.fsum(math.sqrt(a * b) for a, b in zip(p, q, strict=True))))


def divergence(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def free_energy(z):
    return -max(z) - math.log(math.fsum(math.exp(x - max(z)) for x in z))


def energy(p, z):
    return -math.fsum(a * x for a, x in zip(p, z, strict=True))


def first_law(z0, z1):
    """Energy change, heat, work, entropy change, dissipation."""
    p0, p1 = probabilities(z0), probabilities(z1)
    heat = math.fsum(-(a + b) / 2 * (y - x) for a, b, x, y in zip(z0, z1, p0, p1, strict=True))
    work = math.fsum((x + y) / 2 * (a - b) for a, b, x, y in zip(z0, z1, p0, p1, strict=True))
    entropy = [-math.fsum(a * math.log(a) for a in p if a > 0) for p in (p0, p1)]
    sudden = math.fsum(x * (a - b) for a, b, x in zip(z0, z1, p0, strict=True))
    return (
        energy(p1, z1) - energy(p0, z0),
        heat,
        work,
        entropy[1] - entropy[0],
        sudden - (free_energy(z1) - free_energy(z0)),
    )


def pairs_of(width, layout):
    """The two dimensions of each rotary plane."""
    half = width // 2
    return [(j, j + half) if layout == "half" else (2 * j, 2 * j + 1) for j in range(half)]


def turned(x, plane, angle):
    """A vector turned in one plane."""
    a, b = plane
    out = list(x)
    out[a] = x[a] * math.cos(angle) - x[b] * math.sin(angle)
    out[b] = x[a] * math.sin(angle) + x[b] * math.cos(angle)
    return out


def free_energy_of(q, keys, scale):
    """F of one query over its keys."""
    return free_energy([scale * math.fsum(a * b for a, b in zip(q, k, strict=True)) for k in keys])
