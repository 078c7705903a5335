"""Attention and output heads on Boltzmann manifolds, to be put where the usual ones are; and fits of one by another.

The scores are inner products of embedded points (``physics.manifold``), so the attention goes through
``scaled_dot_product_attention`` and the monitor hears it like any other; ``R^N`` is the usual transformer to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermo_monitor.physics.manifold import Manifold, embed, pairing

Distance = Callable[[Tensor, Tensor], Tensor]


class ManifoldAttention(nn.Module):
    """Causal self-attention whose queries and keys are points of a manifold.

    The scores are ``<q, k> / sqrt(N)`` on the flat part, as usual, and the pairing itself elsewhere, with one learned
    ``kappa`` for each head and factor. At the start kappa gives the spread that independent Gaussian coordinates have
    in the usual attention: 1.

    Args:
        width: d, of the residual stream.
        heads: H.
        manifold: of one head. ``Manifold(flat=width // heads)`` is the usual attention.

    Example:
        >>> layer = ManifoldAttention(16, 2, Manifold(spheres=(7,)))
        >>> layer(torch.randn(3, 5, 16)).shape
        torch.Size([3, 5, 16])
    """

    def __init__(self, width: int, heads: int, manifold: Manifold) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} is no multiple of heads={heads}")
        self.heads, self.manifold = heads, manifold
        self.query = nn.Linear(width, heads * manifold.coordinates, bias=False)
        self.key = nn.Linear(width, heads * manifold.coordinates, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.log_kappa = nn.Parameter(_starting_kappa(manifold).log().expand(heads, -1).clone())
        if not manifold.scales:
            self.log_kappa.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] to [B, T, d]."""
        batch, length, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, self.heads, -1).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scale = self.manifold.flat**-0.5 if self.manifold.flat else 1.0
        if self.manifold.scales:
            # The scale of the flat part multiplies the whole product: it is taken out of the rest.
            kappa = self.log_kappa.exp() / scale
            q = torch.stack([embed(q[:, h], self.manifold, kappa[h]) for h in range(self.heads)], 1)
            k = embed(k, self.manifold)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        out: Tensor = self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return out


class ManifoldHead(nn.Module):
    """Output head: the logit of a word is the pairing of its point with that of the text.

    Args:
        width: d, of the residual stream.
        words: V.
        manifold: where both points lie. ``Manifold(flat=width)`` is the usual head: no projection, no kappa.

    Example:
        >>> head = ManifoldHead(16, 50, Manifold(circles=16))
        >>> head(torch.randn(3, 5, 16)).shape
        torch.Size([3, 5, 50])
    """

    def __init__(self, width: int, words: int, manifold: Manifold) -> None:
        super().__init__()
        self.manifold = manifold
        c = manifold.coordinates
        self.project = nn.Identity() if c == width else nn.Linear(width, c, bias=False)
        self.words = nn.Parameter(torch.empty(words, c))
        nn.init.normal_(self.words, std=width**-0.5)
        if manifold.scales:
            with torch.no_grad():
                self.words[:, manifold.flat :].normal_()  # directions, and angles that are spread out
        self.log_kappa = nn.Parameter(_starting_kappa(manifold).log())
        if not manifold.scales:
            self.log_kappa.requires_grad_(False)

    @property
    def kappa(self) -> Tensor:
        """[scales] factors."""
        return self.log_kappa.exp()

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] to logits [..., V]."""
        points = self.project(x)
        if not self.manifold.scales:
            return F.linear(points, self.words)
        return F.linear(embed(points, self.manifold, self.kappa), embed(self.words, self.manifold))


def _starting_kappa(manifold: Manifold) -> Tensor:
    """Factors that give every part a share of a variance of 1: cosines vary by 1/(M + 1) on S^M, by 1/2 on a circle."""
    parts = [math.sqrt(m + 1) for m in manifold.spheres]
    parts += [math.sqrt(2.0 / max(manifold.circles, 1))] * manifold.circles
    return torch.tensor(parts)


@dataclass(frozen=True, slots=True)
class Fit:
    """How well one model's predictions are those of points on a manifold.

    Attributes:
        manifold: of the fit.
        error: geometrization error: the largest distance over the prompts.
        mean: mean distance.
        divergence: mean KL(model || fit) over the prompts, nats, which is what was minimised.
        kappa: factors at the end.
    """

    manifold: Manifold
    error: float
    mean: float
    divergence: float
    kappa: tuple[float, ...]


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half of the sum of absolute differences, [...] in [0, 1].

    Example:
        >>> total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])).item()
        0.5
    """
    return (p - q).abs().sum(-1) / 2


def geometrization_error(
    p: Tensor,
    manifold: Manifold,
    *,
    distance: Distance = total_variation,
    steps: int = 500,
    starts: int = 3,
    seed: int = 0,
) -> Fit:
    """Fit points of a manifold, one for each prompt and each word, to a table of predictions.

    Minimises the mean KL(p || softmax of the pairing) by Adam over all points and kappas, from several starts of which
    the best is kept. The problem is not convex, least of all on a torus: the error is an upper bound of the smallest
    one. (Epsilon-geometrization, Yang 2024: a reconstruction.)

    Args:
        p: [S, V] predictions of a model after S prompts.
        manifold: of the fit.
        distance: of two distributions [..., V]; ``physics.information.fisher_rao_distance`` is another.
        steps: of Adam.
        starts: how many fits are tried.
        seed: of the points at the start; the global generator is left alone.

    Returns:
        The fit. With ``Manifold(flat=n)``, n >= min(S, V), any p without zeros can be fitted as closely as the steps
        allow.

    Raises:
        ValueError: if p is no table of distributions.

    Example:
        >>> p = torch.softmax(torch.eye(3), -1)
        >>> geometrization_error(p, Manifold(flat=3)).error < 0.01
        True
    """
    if p.dim() != 2 or not bool(((p >= 0).all(-1) & ((p.sum(-1) - 1).abs() < 1e-3)).all()):
        raise ValueError(f"p {tuple(p.shape)}: give a table [prompts, words] whose rows are distributions")
    if starts < 1 or steps < 1:
        raise ValueError(f"starts={starts}, steps={steps}: each has to be at least 1")
    p = p.detach().double().cpu()
    generator = torch.Generator().manual_seed(seed)
    fits = [_fit(p, manifold, distance, steps, generator) for _ in range(starts)]
    return min(fits, key=lambda fit: fit.divergence)


def _fit(p: Tensor, manifold: Manifold, distance: Distance, steps: int, generator: torch.Generator) -> Fit:
    def points(rows: int) -> Tensor:
        x = torch.randn(rows, manifold.coordinates, generator=generator, dtype=torch.float64)
        x[:, : manifold.flat] *= 0.3
        return x.requires_grad_()

    texts, words = points(p.shape[0]), points(p.shape[1])
    log_kappa = _starting_kappa(manifold).double().log().requires_grad_()
    with torch.enable_grad():
        optimizer = torch.optim.Adam([texts, words, log_kappa], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            log_q = pairing(words, texts, manifold, log_kappa.exp()).log_softmax(-1)
            divergence = F.kl_div(log_q, p, reduction="batchmean")
            divergence.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        log_q = pairing(words, texts, manifold, log_kappa.exp()).log_softmax(-1)
        d = distance(p, log_q.exp())
        left = float(F.kl_div(log_q, p, reduction="batchmean"))
    return Fit(manifold, float(d.max()), float(d.mean()), left, tuple(log_kappa.exp().tolist()))
