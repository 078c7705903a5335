"""Entropy of representations, and loss, against the size of the model: power laws with their confounds beside them.

At a fixed number n of tokens a wider model has a smaller ``H_norm`` whatever it has learned: random unit tokens with
the widths of Pythia 70M to 12B follow a power law of exponent -0.39 with R^2 = 0.99 at n = 64. So a fit is never given
alone. With it come the same fit of random tokens of the same widths, of H_norm over the cap that n tokens allow, and of
the effective rank. What is left after these is what the models may have to do with it.

That H_norm follows a power law over Pythia sizes is stated by Tan, Li & Huang 2024 (arXiv:2402.03471); their exponents
are not public to us.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from thermo_monitor.analysis.capture import hearing
from thermo_monitor.analysis.loading import load
from thermo_monitor.analysis.material import prepare, read_prompts
from thermo_monitor.physics import representation as geometry

Array = NDArray[np.float64]
SERIES = ("loss", "representation_entropy", "random_tokens", "entropy_over_cap", "effective_rank")
FEWEST = 5  # sizes that make a power law


@dataclass(frozen=True, slots=True)
class Size:
    """One model on the sentences.

    Attributes:
        parameters: number of its parameters.
        width: of its representations.
        tokens: n of each sentence, the same for all models.
        loss: [N] mean next-token loss of each sentence, nats.
        representation_entropy: [N] of the tokens that leave the last block.
        effective_rank: [N] of the same.
    """

    parameters: int
    width: int
    tokens: int
    loss: Array
    representation_entropy: Array
    effective_rank: Array


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Least squares of ln y on ln(parameters): y = factor * parameters^exponent.

    Attributes:
        exponent: the slope.
        low: lower end of its interval over resampled sentences: how well it is measured on these models.
        high: upper end.
        low_models: lower end of its interval by the scatter of the models around the line (Student's t): how well it
            holds for further sizes and seeds.
        high_models: upper end.
        factor: y at one parameter.
        r2: share of the variance of ln y that the line explains.
        sizes: number of models.
    """

    exponent: float
    low: float
    high: float
    low_models: float
    high_models: float
    factor: float
    r2: float
    sizes: int

    def __str__(self) -> str:
        """As in a table."""
        return (
            f"{self.exponent:+.3f} [{self.low:+.3f}, {self.high:+.3f}] sentences, "
            f"[{self.low_models:+.3f}, {self.high_models:+.3f}] models, R2 {self.r2:.3f}"
        )


def count_parameters(model: nn.Module, embeddings: bool = True) -> int:
    """Parameters of a model, shared ones once.

    Args:
        model: any.
        embeddings: whether those of ``nn.Embedding`` count, and with them a head that is tied to one.

    Example:
        >>> count_parameters(nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 3)), embeddings=False)
        9
    """
    left_out = set()
    if not embeddings:
        left_out = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if id(p) not in left_out)


def measure(model: nn.Module, ids: Tensor, *, parameters: int | None = None, batch: int = 32) -> Size:
    """One point of the law.

    Args:
        model: a causal language model whose blocks can be heard, ids [B, T] -> logits [B, T, V].
        ids: [N, n] sentences, the same for all models.
        parameters: size; counted unless given.
        batch: sentences read at a time.

    Raises:
        ValueError: fewer than 2 sentences or tokens, or tokens that the model does not have.
    """
    if ids.dim() != 2 or min(ids.shape) < 2:
        raise ValueError(f"ids of shape {tuple(ids.shape)}: give [N, n], at least 2 sentences of at least 2 tokens")
    losses, entropies, ranks, width = [], [], [], 0
    with hearing(model) as hear:
        for part in (ids[at : at + batch] for at in range(0, len(ids), batch)):
            heard = hear(part)
            logits = getattr(heard.output, "logits", heard.output)
            if int(part.max()) >= logits.shape[-1]:
                raise ValueError(f"token {int(part.max())} of the sentences, and the model has {logits.shape[-1]}")
            loss = F.cross_entropy(logits[:, :-1].double().transpose(1, 2).cpu(), part[:, 1:].cpu(), reduction="none")
            hidden = list(heard.hidden.values())[-1]
            width = hidden.shape[-1]
            losses.append(loss.mean(1))
            entropies.append(geometry.representation_entropy(hidden))
            ranks.append(geometry.effective_rank(geometry.spectrum(hidden)))
    return Size(
        count_parameters(model) if parameters is None else parameters,
        width,
        ids.shape[1],
        *(torch.cat(x).numpy() for x in (losses, entropies, ranks)),
    )


def random_tokens(width: int, tokens: int, sentences: int = 16, seed: int = 0) -> Array:
    """Representation entropies [sentences] of tokens that point anywhere: the null, with no model in it.

    Example:
        >>> bool(random_tokens(512, 64)[0] > random_tokens(1024, 64)[0])
        True
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(sentences, tokens, width, generator=generator, dtype=torch.float64)
    return geometry.representation_entropy(z).numpy()


def power_law(parameters: Sequence[int], values: Array, *, resamples: int = 2000, seed: int = 0) -> PowerLaw:
    """Fit a power law to means over sentences.

    Args:
        parameters: [K] sizes, at least 5 different ones.
        values: [K, N] one row of sentences for each model, positive on average; the same sentences in every row, so
            that they are resampled together.
        resamples: of the bootstrap over sentences.
        seed: of the resamples.

    Returns:
        The law. Without scatter (N = 1) the first interval is NaN.

    Raises:
        ValueError: too few sizes.

    Example:
        >>> law = power_law([10, 100, 1000, 10_000, 100_000], np.array([[10.0], [1.0], [0.1], [0.01], [0.001]]))
        >>> round(law.exponent, 9), round(law.factor, 6), round(law.r2, 9)
        (-1.0, 100.0, 1.0)
    """
    x, y = np.log(np.asarray(parameters, dtype=np.float64)), np.asarray(values, dtype=np.float64)
    if len(set(parameters)) < FEWEST:
        raise ValueError(f"{len(set(parameters))} sizes: a power law needs at least {FEWEST}")
    y = y[:, np.isfinite(y).all(0)]  # a sentence that one model has no value for is left out for all
    centred = x - x.mean()
    nan = math.nan
    nothing = PowerLaw(nan, nan, nan, nan, nan, nan, nan, len(x))
    if not y.shape[1] or not (y.mean(1) > 0).all():
        return nothing
    fit = stats.linregress(x, np.log(y.mean(1)))
    half = float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr)
    low = high = math.nan
    if y.shape[1] > 1:
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(y.shape[1], np.full(y.shape[1], 1 / y.shape[1]), size=resamples) / y.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            slopes = centred @ np.log(y @ weights.T) / (centred @ centred)
        low, high = (float(q) for q in np.quantile(slopes[np.isfinite(slopes)], [0.025, 0.975]))
    slope = float(fit.slope)
    return PowerLaw(slope, low, high, slope - half, slope + half, math.exp(fit.intercept), float(fit.rvalue**2), len(x))


def scaling_law(sizes: Sequence[Size], *, resamples: int = 2000, seed: int = 0) -> dict[str, PowerLaw]:
    """The law of loss and of representation entropy, beside the null and the two controls.

    Args:
        sizes: at least 5 models, measured on the same sentences; several seeds of a size are several entries.
        resamples: see ``power_law``.
        seed: of the resamples and of the random tokens.

    Returns:
        Name in ``SERIES`` -> law.

    Raises:
        ValueError: too few sizes, or sentences that differ.
    """
    if len({(one.tokens, len(one.loss)) for one in sizes}) != 1:
        raise ValueError("the models were measured on different sentences: H_norm compares at equal n only")
    parameters = [one.parameters for one in sizes]
    return {
        name: power_law(parameters, values, resamples=resamples, seed=seed)
        for name, values in series(sizes, seed).items()
    }


def series(sizes: Sequence[Size], seed: int = 0) -> dict[str, Array]:
    """What the laws are fitted to: name -> [K, N]."""
    caps = np.array([geometry.representation_entropy_cap(one.tokens, one.width) for one in sizes])
    entropy = np.stack([one.representation_entropy for one in sizes])
    return {
        "loss": np.stack([one.loss for one in sizes]),
        "representation_entropy": entropy,
        "random_tokens": np.stack([random_tokens(one.width, one.tokens, seed=seed) for one in sizes]),
        "entropy_over_cap": entropy / caps[:, None],
        "effective_rank": np.stack([one.effective_rank for one in sizes]),
    }


def local_family(folders: Iterable[Path | str], prompts: Path | str, tokens: int = 64) -> Iterator[Size]:
    """Measure the models of a family that lie on this disk, Pythia, say; one at a time is in memory.

    Args:
        folders: of transformers, with safetensors; nothing is downloaded.
        prompts: file of prompts, see ``material.read_prompts``.
        tokens: n; the first n tokens of the prompts that have as many are the sentences.

    Raises:
        ValueError: a model or the prompts cannot be read, or fewer than 2 prompts are long enough.
    """
    for folder in folders:
        loaded = load(folder)
        material = prepare(loaded, read_prompts(prompts, ids=loaded.tokenizer is None), length=tokens)
        yield measure(loaded.model, material.ids)
