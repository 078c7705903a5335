"""Models from this disk, without running anything that lies beside their weights.

Weights are read from safetensors, or from a checkpoint that ``torch.load(weights_only=True)`` takes; code that comes
with a model, and pickles, are refused with a line that says what to do. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pickle
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in evaluation mode.

    Attributes:
        name: the place that it came from.
        model: ids -> logits, or an output with logits.
        tokenizer: of transformers, or None: prompts are then ids.
    """

    name: str
    model: nn.Module
    tokenizer: Any = None


def load(place: str | Path, build: str | None = None, tokenizer: str | Path | None = None) -> Loaded:
    """A model from a local folder of transformers, or from a checkpoint.

    Args:
        place: a folder with ``config.json`` and safetensors; or a file ``.ckpt``, ``.pt``, ``.pth``, ``.safetensors``.
        build: for a checkpoint: ``module:Class`` or ``module:function`` that makes the model; what the checkpoint's
            hyper-parameters name and it takes is passed on.
        tokenizer: folder of a tokenizer; that of the model unless given.

    Raises:
        ValueError: one line that says what is wrong: nothing there, code or pickles in it, weights that do not fit.
    """
    path = Path(place)
    if path.is_dir():
        if build is not None:
            raise ValueError(f"{path} is a folder, which transformers builds itself: --model is for checkpoints")
        return Loaded(str(place), _folder(path), _tokenizer(Path(tokenizer or path), wanted=tokenizer is not None))
    if path.is_file() and path.suffix in _CHECKPOINTS:
        if build is None:
            raise ValueError(f"{path} holds weights only: say what makes the model with --model module:Class")
        words = None if tokenizer is None else _tokenizer(Path(tokenizer), wanted=True)
        return Loaded(str(place), _checkpoint(path, build), words)
    what = "is no checkpoint (.ckpt, .pt, .pth, .safetensors)" if path.exists() else "is not on this disk"
    raise ValueError(f"{place} {what}; give a local folder of transformers or a checkpoint: nothing is downloaded")


def state_of(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and hyper-parameters of a checkpoint file.

    Raises:
        ValueError: it holds pickled objects, or no weights.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path), {}
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read as safetensors: {_line(error)}") from None
    try:
        with warnings.catch_warnings():  # about pickles, which are refused in our own words
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds pickled objects beside its weights, and loading those can run code: refused. Save it with "
            "plain hyper-parameters (numbers, texts, lists), or write model.state_dict() with safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {_line(error)}") from None
    state = held.get("state_dict", held.get("model", held)) if isinstance(held, Mapping) else {}
    weights = {str(k): v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not weights:
        raise ValueError(f"{path} holds no state_dict")
    hyper = held.get("hyper_parameters")
    return weights, dict(hyper) if isinstance(hyper, Mapping) else {}


def _folder(path: Path) -> nn.Module:
    try:
        import transformers
    except ImportError:
        raise ValueError("folders of transformers need it: pip install 'thermo-monitor[analysis]'") from None
    config = _json(path / "config.json")
    if config is None:
        raise ValueError(f"{path} has no config.json: it is no folder of transformers")
    if "auto_map" in config:
        raise ValueError(f"{path} brings code of its own (auto_map in config.json), which is not run: refused")
    if not list(path.glob("*.safetensors")):
        pickled = next((p.name for p in sorted(path.glob("*.bin"))), None)
        raise ValueError(
            f"{path} has pickled weights ({pickled}), and loading those can run code: refused. Convert them with "
            "model.save_pretrained(folder, safe_serialization=True)"
            if pickled
            else f"{path} has no safetensors"
        )
    try:
        model: nn.Module = transformers.AutoModelForCausalLM.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except Exception as error:  # of transformers, of the configuration, of safetensors
        raise ValueError(f"transformers cannot load {path}: {_line(error)}") from None
    return model.eval()


def _tokenizer(path: Path, wanted: bool) -> Any:
    """The tokenizer of a folder; None if it has none and none was asked for."""
    import transformers

    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
    if not any((path / name).exists() for name in names):
        if wanted:
            raise ValueError(f"{path} has no tokenizer")
        return None
    if "auto_map" in (_json(path / "tokenizer_config.json") or {}):
        raise ValueError(f"the tokenizer in {path} brings code of its own (auto_map), which is not run: refused")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of transformers, of tokenizers, of what they lack
        raise ValueError(f"transformers cannot load the tokenizer in {path}: {_line(error)}") from None


def _checkpoint(path: Path, build: str) -> nn.Module:
    state, hyper = state_of(path)
    model = _built(build, hyper)
    wanted = model.state_dict()
    if set(state) != set(wanted):
        # A trainer's module wraps the model under a name of its own. Under two names there are two such parts.
        first = next(iter(wanted), "")
        prefixes = [key.removesuffix(first) for key in state if key.endswith(f".{first}")]
        fitting = [prefix for prefix in prefixes if all(prefix + key in state for key in wanted)]
        if len(fitting) == 1:
            state = {key: state[fitting[0] + key] for key in wanted}
    missing, foreign = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    if missing or foreign:
        lacks = f"lacks {missing[0]}" if missing else f"has {foreign[0]}, which the model lacks"
        raise ValueError(f"{path} does not fit {build}: it {lacks} (and {len(missing) + len(foreign) - 1} more)")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {build}: {_line(error, -1)}") from None
    return model.eval()


def _built(build: str, hyper: Mapping[str, Any]) -> nn.Module:
    name, _, attribute = build.partition(":")
    if not name or not attribute:
        raise ValueError(f"--model {build}: give module:Class or module:function")
    here = os.getcwd()
    if here not in sys.path:  # a console script does not look where it is called
        sys.path.insert(0, here)
    try:
        make = getattr(importlib.import_module(name), attribute)
        takes = inspect.signature(make).parameters
        every = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        model = make(**{k: v for k, v in hyper.items() if every or k in takes})
    except Exception as error:  # anything that the user's module does
        raise ValueError(f"--model {build} makes no model: {type(error).__name__}: {error}") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"--model {build} makes a {type(model).__name__}, not a torch.nn.Module")
    return model


def _line(error: Exception, at: int = 0) -> str:
    """One line of an error; its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[at].strip()


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return found if isinstance(found, dict) else None
