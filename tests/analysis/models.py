"""Small language models whose every probability is known, and two of transformers."""

import numpy as np
import torch


class Markov(torch.nn.Module):
    """The next token depends on the last one: ids [B, T] -> logits [B, T, V], float64. Token 0 stops."""

    def __init__(self, p):
        super().__init__()
        self.y = torch.nn.Parameter(torch.as_tensor(p, dtype=torch.float64).log())

    def forward(self, ids):
        return self.y[ids]

    @property
    def p(self):
        return self.y.detach().softmax(-1).numpy()


def random_markov(words=4, seed=0, stop=0.3):
    """Stops with probability ``stop`` or more at every step."""
    p = np.random.default_rng(seed).dirichlet(np.full(words, 0.6), size=words)
    p = (1 - stop) * p
    p[:, 0] += stop
    return Markov(p)


def entropy_function(p, temperature=1.0):
    """S_L after each last token, from S = H + sum over tokens that do not stop of p S."""
    p = p ** (1 / temperature)
    p = p / p.sum(1, keepdims=True)
    h = -(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)).sum(1)
    inside = p.copy()
    inside[:, 0] = 0
    return np.linalg.solve(np.eye(len(p)) - inside, h)


def enumerated(p, start, depth):
    """S_L summed text by text, up to a length."""
    total, texts = 0.0, [(1.0, start)]
    for _ in range(depth):
        after = []
        for mass, last in texts:
            end = mass * p[last, 0]
            total -= end * np.log(end)
            after += [(mass * p[last, w], w) for w in range(1, len(p)) if mass * p[last, w] > 1e-12]
        texts = after
    return total


def tree():
    """Three leaves of equal probability: A (2/3) has two, B (1/3) has one. Tokens: stop, A, B, three leaves, begin."""
    p = np.zeros((7, 7))
    p[6, [1, 2]] = 2 / 3, 1 / 3
    p[1, [3, 4]] = 1 / 2
    p[2, 5] = 1
    p[[0, 3, 4, 5], 0] = 1
    return Markov(p)


def decoder(kind="llama", context=64, words=20, stop=0):
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, vocab_size=words, n_positions=context, bos_token_id=None, eos_token_id=stop,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config).double()
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=words, max_position_embeddings=context, bos_token_id=None, eos_token_id=stop, pad_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).double()
