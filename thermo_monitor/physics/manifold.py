"""Boltzmann manifolds: softmax of a pairing between points of a manifold, ``P(w|s) = softmax_w <x_w, h_s>``.

(Yang 2024, arXiv:2407.21092, known to us second-hand; the formulas are a reconstruction.) On R^N the pairing is the
inner product, which is the usual head; on the sphere S^M it is ``kappa x.h`` of unit vectors; on a torus
``sum_j kappa_j cos(theta_j - phi_j)``; on products the sum of those of the factors. All of them are inner products of
embedded points, since ``cos(theta - phi) = (cos theta, sin theta).(cos phi, sin phi)``: whatever computes or hears the
usual attention computes and hears these.

A point is given by free coordinates [..., c]: N numbers, then M + 1 for each sphere (of any length but 0; the direction
counts), then one angle for each circle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Manifold:
    """``R^N x S^M1 x S^M2 ... x (S^1)^K``.

    Attributes:
        flat: N.
        spheres: dimension M of each sphere.
        circles: K.

    Raises:
        ValueError: if a dimension is negative, or nothing is left.

    Example:
        >>> m = Manifold(flat=2, spheres=(2,), circles=3)
        >>> m.coordinates, m.features, m.scales, str(m)
        (8, 11, 4, 'R^2 x S^2 x (S^1)^3')
    """

    flat: int = 0
    spheres: tuple[int, ...] = ()
    circles: int = 0

    def __post_init__(self) -> None:
        if self.flat < 0 or self.circles < 0 or any(m < 1 for m in self.spheres) or not self.coordinates:
            raise ValueError(f"{self!r}: give at least one dimension, none negative, spheres of dimension 1 or more")

    @property
    def coordinates(self) -> int:
        """Free numbers that give a point."""
        return self.flat + sum(m + 1 for m in self.spheres) + self.circles

    @property
    def features(self) -> int:
        """Dimension of the space in which the pairing is an inner product."""
        return self.flat + sum(m + 1 for m in self.spheres) + 2 * self.circles

    @property
    def scales(self) -> int:
        """Number of kappas: one for each sphere and one for each circle."""
        return len(self.spheres) + self.circles

    def __str__(self) -> str:
        """As it is written."""
        parts = [f"R^{self.flat}"] if self.flat else []
        parts += [f"S^{m}" for m in self.spheres]
        parts += [f"(S^1)^{self.circles}"] if self.circles else []
        return " x ".join(parts)


def embed(points: Tensor, manifold: Manifold, kappa: Tensor | None = None) -> Tensor:
    """Points as vectors whose inner products are the pairing. Only one of the two sides gets ``kappa``.

    Args:
        points: [..., coordinates] free coordinates.
        manifold: where they lie.
        kappa: [scales] factor of each sphere and circle; None: ones.

    Returns:
        [..., features]. On R^N the points themselves.

    Raises:
        ValueError: if the number of coordinates or of factors is another.

    Example:
        >>> circle = Manifold(circles=1)
        >>> x, h = torch.tensor([0.3]), torch.tensor([1.3])
        >>> torch.allclose(embed(x, circle, torch.tensor([5.0])) @ embed(h, circle), 5 * torch.tensor(1.0).cos())
        True
    """
    if points.shape[-1] != manifold.coordinates:
        raise ValueError(f"{manifold} has points of {manifold.coordinates} coordinates, not {points.shape[-1]}")
    if kappa is not None and kappa.shape != (manifold.scales,):
        raise ValueError(f"{manifold} has {manifold.scales} factors kappa, not {tuple(kappa.shape)}")
    if not manifold.scales:
        return points
    parts, at = [points[..., : manifold.flat]], manifold.flat
    for i, m in enumerate(manifold.spheres):
        direction = torch.nn.functional.normalize(points[..., at : at + m + 1], dim=-1)
        parts.append(direction if kappa is None else kappa[i] * direction)
        at += m + 1
    angles = points[..., at:]
    for wave in (angles.cos(), angles.sin()):
        parts.append(wave if kappa is None else kappa[len(manifold.spheres) :] * wave)
    return torch.cat(parts, -1)


def pairing(x: Tensor, h: Tensor, manifold: Manifold, kappa: Tensor | None = None) -> Tensor:
    """The pairing of all points of one set with all of another.

    Args:
        x: [..., V, coordinates].
        h: [..., S, coordinates].
        manifold: where they lie.
        kappa: [scales]; None: ones.

    Returns:
        [..., S, V] logits.

    Example:
        >>> sphere = Manifold(spheres=(2,))
        >>> pairing(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[0.0, 0.0, -2.0]]), sphere).item()
        -1.0
    """
    return embed(h, manifold, kappa) @ embed(x, manifold).mT


def logit_bound(manifold: Manifold, kappa: Tensor) -> Tensor:
    """Largest absolute logit, ``sum |kappa|``; infinite with a flat factor.

    Example:
        >>> logit_bound(Manifold(circles=2), torch.tensor([1.0, 2.0])).item()
        3.0
    """
    bound = kappa.abs().sum()
    return torch.full_like(bound, math.inf) if manifold.flat else bound


def bounded_specific_heat(bound: float) -> float:
    """Largest specific heat of any number of states with logits within +-bound: ``bound^2``, approached by few states.

    A variance of numbers in an interval is at most a quarter of its length squared.

    Example:
        >>> bounded_specific_heat(3.0)
        9.0
    """
    return bound**2


def bounded_p_max(bound: float, states: int) -> float:
    """Largest probability of one of V states with logits within +-bound: ``1 / (1 + (V - 1) e^(-2 bound))``.

    Example:
        >>> round(bounded_p_max(math.log(3.0) / 2, 2), 9)
        0.75
    """
    return 1.0 / (1.0 + (states - 1) * math.exp(-2.0 * bound))


def bounded_entropy(bound: float, states: int) -> tuple[float, int]:
    """Smallest entropy of V states with logits within +-bound, and how many of them are then at the upper end.

    Entropy is smallest at a corner, k logits at +bound and the rest at -bound:
    ``ln(k + (V - k) e^(-2 b)) + 2 b (V - k) e^(-2 b) / (k + (V - k) e^(-2 b))``, smallest over k = 1 ... V - 1.

    Args:
        bound: b, ``kappa`` on a sphere, the sum of the kappas on a torus.
        states: V.

    Returns:
        Nats, and k; (ln V, V) for bound 0 and for one state.

    Example:
        >>> [(round(s, 6), k) for s, k in (bounded_entropy(b, 1000) for b in (1.0, 3.0, 5.0))]
        [(6.433282, 206), (3.687584, 12), (0.478224, 1)]
    """
    if states < 2 or bound == 0:
        return math.log(states), states
    k = torch.arange(1, states, dtype=torch.float64)
    rest = (states - k) * math.exp(-2.0 * bound)
    entropy = (k + rest).log() + 2.0 * bound * rest / (k + rest)
    least = int(entropy.argmin())
    return float(entropy[least]), least + 1
