"""Per-example gradients and Fisher matrices, one backward pass at a time, in full."""

import torch


def example_gradients(model, loss, inputs, labels):
    """Gradient of the loss of every example by itself: {name: [B, ...]}."""
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    rows = []
    for at in range(len(inputs)):
        value = loss(model(inputs[at : at + 1]), labels[at : at + 1])
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)])
    return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(names)}


def squared_norms(gradients):
    """[B] squared norms over all parameters."""
    return sum(g.double().flatten(1).square().sum(1) for g in gradients.values())


def jacobian(function, parameters):
    """[outputs, parameters] of a function of a flat parameter vector, row by row."""
    parameters = parameters.detach().requires_grad_(True)
    outputs = function(parameters).flatten()
    return torch.stack([torch.autograd.grad(y, parameters, retain_graph=True)[0] for y in outputs])


def softmax_fisher(function, parameters, rows):
    """The Fisher matrix of a softmax, in full: mean over rows of J^T (diag p - p p^T) J."""
    outputs = function(parameters.detach())
    j = jacobian(function, parameters).unflatten(0, (rows, -1))
    p = outputs.softmax(-1)
    h = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    return torch.einsum("nvp,nvw,nwq->pq", j, h, j) / rows
