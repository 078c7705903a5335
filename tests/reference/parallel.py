"""Entropies of parallel generations, run by run and word by word."""

import math


def entropy(p):
    return -math.fsum(x * math.log(x) for x in p if x > 0)


def mean(rows):
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def readings(p):
    """p: one distribution for each run."""
    marginal, conditional = entropy(mean(p)), math.fsum(map(entropy, p)) / len(p)
    information = 0.0  # of run and token, from their joint distribution
    pbar = mean(p)
    for row in p:
        information += math.fsum(x / len(p) * math.log(x / m) for x, m in zip(row, pbar, strict=True) if x > 0)
    left_out = [entropy(mean(p[:b] + p[b + 1 :])) for b in range(len(p))] if len(p) > 1 else []
    n = len(p)
    jackknife = n * marginal - (n - 1) * math.fsum(left_out) / n if n > 1 else math.nan
    spread = math.fsum((x - math.fsum(left_out) / n) ** 2 for x in left_out)
    error = math.sqrt((n - 1) / n * spread) if n > 1 else math.nan
    return {"marginal": marginal, "conditional": conditional, "information": information, "jackknife": jackknife,
            "error": error}  # fmt: skip
