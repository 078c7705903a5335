"""Everything that a monitor could disturb, as hashes and counts that are compared with it and without it."""

import hashlib
import pickle
import random
import sys

import numpy as np
import torch
from torch.overrides import _len_torch_function_stack

from thermo_monitor.probes import hub


def seed_all(seed=0):
    """All three generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global state is what is watched
    torch.manual_seed(seed)


def digest(value):
    """sha256 of tensors, arrays and plain values, nested."""
    h = hashlib.sha256()
    _feed(h, value)
    return h.hexdigest()


def _feed(h, value):
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        h.update(f"{value.dtype}{tuple(value.shape)}".encode())
        h.update(value.view(torch.uint8).numpy().tobytes() if value.dim() else pickle.dumps(value.item()))
    elif isinstance(value, np.ndarray):
        h.update(value.tobytes())
    elif isinstance(value, dict):
        for key in value:
            h.update(repr(key).encode())
            _feed(h, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(h, item)
    else:
        h.update(repr(value).encode())


def result(model, optimizer, losses):
    """What a training came to, and what it left the random generators at."""
    return {
        "parameters": digest(list(model.parameters())),
        "buffers": digest(list(model.buffers())),
        "optimizer": digest(optimizer.state_dict()),
        "losses": digest(losses),
        "torch": digest(torch.get_rng_state()),
        "numpy": digest(np.random.get_state()),  # noqa: NPY002
        "python": digest(random.getstate()),
        "keys": list(model.state_dict()),
    }


def installed(model):
    """What is hooked into the model and the process."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    found = {kind: sum(len(getattr(m, kind)) for m in model.modules()) for kind in kinds}
    found |= {"modes": _len_torch_function_stack(), "listening": hub.ACTIVE, "grad": torch.is_grad_enabled()}
    found["parameter hooks"] = sum(len(p._backward_hooks or ()) for p in model.parameters())
    if "transformers.modeling_utils" in sys.modules:
        interface = sys.modules["transformers.modeling_utils"].AttentionInterface
        found["attention"] = dict(interface._global_mapping)
        found["interface"] = getattr(interface, "get_interface", None)  # from transformers 5 on
    return found
