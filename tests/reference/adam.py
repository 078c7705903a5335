"""Adam's moments and the Fisher information, as slow and as plain as can be."""

import torch


def expected_moments(mean, deviation, examples, beta1, beta2, steps):
    """Exact expectations of v and m^2 after some steps, for independent gradients of one parameter.

    Every step contributes (1 - b) b^(steps - 1 - k) times its gradient, whose variance is deviation^2 / examples.
    """
    first = [(1 - beta1) * beta1**k for k in range(steps)]
    second = [(1 - beta2) * beta2**k for k in range(steps)]
    variance = deviation**2 / examples
    expected_v = sum(second) * (mean**2 + variance)
    expected_m2 = (sum(first) * mean) ** 2 + sum(w * w for w in first) * variance
    return expected_v, expected_m2


def squared_gradient_norms(model, loss, inputs, labels):
    """Squared gradient norm of the loss of every example by itself: one backward pass for each."""
    norms = []
    parameters = [p for p in model.parameters() if p.requires_grad]
    for x, y in zip(inputs, labels, strict=True):
        gradients = torch.autograd.grad(loss(model(x[None]), y[None]), parameters)
        norms.append(sum(g.double().square().sum() for g in gradients))
    return torch.stack(norms)
