"""One row of logits, straight from the definitions."""

import math

NAMES = [
    "log_partition", "internal_energy", "entropy", "free_energy", "specific_heat", "specific_heat_norm",
    "specific_heat_row", "energy_gap", "free_energy_gap", "entropy_fraction", "n_eff", "max_logit", "p_max",
    "logit_std", "freezing_ratio",
]  # fmt: skip


def probabilities(z):
    top = max(z)
    weights = [math.exp(x - top) for x in z]
    return [w / math.fsum(weights) for w in weights]


def bound(n):
    """C_max(n) by bisection, one n at a time."""
    low, high = 2.0, 4.0 + math.log(n)
    for _ in range(200):
        x = (low + high) / 2
        p = 1 / (1 + (n - 1) * math.exp(-x))
        low, high = (low, x) if x * (2 * p - 1) > 2 else (x, high)
    return p * (1 - p) * x * x, x


def row(z, mask=None):
    """Every quantity of a row; ``mask`` keeps the keys that are states."""
    z = [x for x, keep in zip(z, mask or [True] * len(z), strict=True) if keep]
    n, nan = len(z), math.nan
    out = dict.fromkeys(NAMES, nan)
    out["n"] = n
    if n == 0:
        return out
    p = probabilities(z)
    log_z = max(z) + math.log(math.fsum(math.exp(x - max(z)) for x in z))
    mean = math.fsum(a * x for a, x in zip(p, z, strict=True))
    out |= {
        "log_partition": log_z,
        "internal_energy": -mean,
        "free_energy": -log_z,
        "max_logit": max(z),
        "p_max": max(p),
    }
    if n == 1:
        return out
    entropy = -math.fsum(a * math.log(a) for a in p if a > 0)
    heat = math.fsum(a * (x - mean) ** 2 for a, x in zip(p, z, strict=True))
    plain = math.fsum(z) / n
    variance = math.fsum((x - plain) ** 2 for x in z) / n
    return out | {
        "entropy": entropy,
        "specific_heat": heat,
        "specific_heat_norm": heat / bound(n)[0],
        "specific_heat_row": variance,
        "energy_gap": mean - plain,
        "free_energy_gap": log_z - plain - math.log(n),
        "entropy_fraction": entropy / math.log(n),
        "n_eff": math.exp(entropy),
        "logit_std": math.sqrt(variance),
        "freezing_ratio": math.sqrt(variance) / math.sqrt(2 * math.log(n)),
    }


def streaming(blocks):
    """One pass over blocks of keys with a running maximum (Milakov & Gimelshein 2018), carried to second moments.

    Returns the state (m, M0, M1, M2) after each block.
    """
    m, m0, m1, m2 = -math.inf, 0.0, 0.0, 0.0
    states = []
    for block in blocks:
        new = max(m, *block)
        e = m - new if m0 else 0.0
        r = math.exp(e)
        m2, m1, m0, m = r * (m2 + 2 * e * m1 + e * e * m0), r * (m1 + e * m0), r * m0, new
        for x in block:
            w = math.exp(x - m)
            m0, m1, m2 = m0 + w, m1 + w * (x - m), m2 + w * (x - m) ** 2
        states.append((m, m0, m1, m2))
    return states
