"""Trains one run with the monitor on and writes down what the detector was given and how well the model did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from thermo_monitor import Monitor, presets
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.probes.attention import AttentionProbe
from thermo_monitor.probes.base import Probe
from thermo_monitor.probes.example_gradients import ExampleGradientProbe
from thermo_monitor.probes.representation import RepresentationProbe
from transitions.problem import Recipe
from transitions.recording import Recording, Tap

EVERY = 5  # cadence of the costly probes; transitions of these small runs take some fifty steps
MEASURED = 10  # every how many steps the order parameters are measured
OPTIONS = OnlineDetector(arl=100_000, burn_in=40)


def probes(preset: str) -> list[Probe]:
    """Those of a preset with a sample of tokens that fits small models, and what else may tell something."""
    found = []
    for probe in presets.resolve(preset):
        if isinstance(probe, AttentionProbe):
            probe = replace(probe, quantities=(*probe.quantities, "attn/specific_heat_pooled"))
        elif isinstance(probe, RepresentationProbe):
            probe = replace(probe, tokens=128)
        found.append(probe)
    if not any(isinstance(probe, ExampleGradientProbe) for probe in found):
        found.append(ExampleGradientProbe(examples=None, quantities=("fisher/gradient_coherence",)))
    return found


def record(recipe: Recipe, seed: int) -> tuple[Recording, list[str]]:
    """One run of a recipe: what was recorded, and the events of the live detector as JSON."""
    torch.manual_seed(seed)
    problem = recipe.problem(seed)
    model = problem.model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=(0.9, recipe.beta), weight_decay=recipe.weight_decay
    )
    recording = Recording()
    measured: dict[str, list[tuple[int, float]]] = {}
    chance = torch.Generator().manual_seed(seed)
    monitor = Monitor(
        model, optimizer, every=EVERY, preset=probes(problem.preset), detector=OPTIONS, sinks=[], strict=True
    )
    monitor._reader.detector = Tap(OPTIONS, recording)
    with monitor:
        for step in range(recipe.steps):
            if step % MEASURED == 0:
                model.eval()
                with torch.no_grad():
                    for name, value in problem.orders(model).items():
                        measured.setdefault(name, []).append((step, value))
                model.train()
            if recipe.schedule is not None:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * recipe.schedule(step)
            inputs, targets = problem.batch(step)
            if recipe.disturb is not None:
                inputs, targets = recipe.disturb(step, (inputs, targets), chance)
            with monitor.step(step):
                loss = problem.loss(model(inputs), targets)
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                optimizer.step()
                optimizer.zero_grad()
    recording.orders = {
        name: (np.array([s for s, _ in points], np.int64), np.array([v for _, v in points]))
        for name, points in measured.items()
    }
    return recording, [event.to_json() for event in monitor.events]
