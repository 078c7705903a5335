"""Small models that the tests train."""

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY, LENGTH, WIDTH = 11, 6, 16


class Attention(nn.Module):
    """Two heads through ``scaled_dot_product_attention``, with dropout."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x):
        q, k, v = (p.unflatten(-1, (2, -1)).transpose(1, 2) for p in self.qkv(x).chunk(3, dim=-1))
        p = 0.1 if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Pre-norm attention and a linear map."""

    def __init__(self):
        super().__init__()
        self.norm, self.attention, self.out = nn.LayerNorm(WIDTH), Attention(), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + F.dropout(self.out(self.attention(self.norm(x))), 0.1, self.training)


class Transformer(nn.Module):
    """A language model of two blocks: logits [B, T, V]."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Encoder(nn.Module):
    """The same with ``nn.TransformerEncoder``."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.1, batch_first=True)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens)))


class Plain(nn.Module):
    """No attention, no blocks."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens):
        return self.head(self.embed(tokens))


def batches(count, size=4, length=LENGTH, seed=1):
    """Token batches [B, T] that are the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (size, length), generator=generator) for _ in range(count)]


def cross_entropy(logits, tokens):
    """Each token is to be repeated; easy enough to be learned."""
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def build(kind=Transformer, seed=0):
    """A model with the same weights every time."""
    torch.manual_seed(seed)
    return kind()


def train(model, monitor, steps=3, data=None, optimizer=None, before=None, accumulate=1):
    """The plain loop of the documentation; returns the losses."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = data or batches(steps * accumulate)
    losses = []
    for step in range(steps):
        with monitor.step(step):
            for part in range(accumulate):
                tokens = data[(step * accumulate + part) % len(data)]
                if before is not None:
                    before(step)
                loss = cross_entropy(model(tokens), tokens)
                monitor.loss(loss)
                (loss / accumulate).backward()
                losses.append(loss.detach())
            monitor.gradients()
            optimizer.step()
            optimizer.zero_grad()
    return losses
