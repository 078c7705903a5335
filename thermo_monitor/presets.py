"""Ready lists of probes, to print, to edit and to pass on.

Example:
    >>> [type(probe).__name__ for probe in default()][:3]
    ['LossProbe', 'GradientProbe', 'WeightProbe']
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

from thermo_monitor.probes.attention import ALL_QUANTITIES, AttentionProbe
from thermo_monitor.probes.base import Probe
from thermo_monitor.probes.example_gradients import ExampleGradientProbe
from thermo_monitor.probes.fisher_proxy import FisherProxyProbe
from thermo_monitor.probes.geometry import GeometryProbe
from thermo_monitor.probes.geometry_readings import ALL_GEOMETRY
from thermo_monitor.probes.loss import LossProbe
from thermo_monitor.probes.norms import GradientProbe, WeightProbe
from thermo_monitor.probes.output import OutputProbe
from thermo_monitor.probes.representation import RepresentationProbe
from thermo_monitor.probes.temperature import TemperatureProbe
from thermo_monitor.probes.update import UpdateProbe

_REPRESENTATION = (
    "repr/representation_entropy",
    "repr/spectral_entropy",
    "repr/effective_rank",
    "repr/participation_ratio",
    "repr/head_tail_contrast",
)
_EXAMPLES = (
    "fisher/trace_empirical",
    "fisher/share_empirical",
    "fisher/covered_share",
    "fisher/noise_trace",
    "fisher/gradient_noise_scale",
    "fisher/gradient_coherence",
    "fisher/proxy_ratio",
    "opt/sgd_temperature",
)
_FISHER = ("fisher/trace_adam_proxy", "fisher/share_adam_proxy")
_OUTPUT = ("out/predictive_entropy", "out/output_specific_heat", "out/calibration_gap", "loss/loss_variance")
_TRAINING = ("out/calibration_drift", "out/cross_entropy", "out/entropy_term", "out/training_free_energy")


def _cheap() -> list[Probe]:
    return [LossProbe(), GradientProbe(), WeightProbe(), UpdateProbe()]


def default() -> list[Probe]:
    """What a transformer needs, at a cost that nobody notices."""
    return [
        *_cheap(),
        AttentionProbe(),
        OutputProbe(),
        RepresentationProbe(),
        FisherProxyProbe(),
    ]


def grokking() -> list[Probe]:
    """``default()`` for a task with one answer: representations are read where the answer is given.

    And gradient coherence, which tells a rule that was found from answers learned by heart, where one batch is the
    training set; else give ``ExampleGradientProbe`` its size as ``dataset``.
    """
    return [
        *_cheap(),
        AttentionProbe(),
        OutputProbe(),
        RepresentationProbe(positions="last"),
        FisherProxyProbe(),
        ExampleGradientProbe(examples=None, quantities=("fisher/gradient_coherence",)),
    ]


def llm() -> list[Probe]:
    """``default()`` with larger samples, for long sequences and large vocabularies."""
    return [
        *_cheap(),
        AttentionProbe(rows=128),
        OutputProbe(tokens=512, quantities=_OUTPUT),
        RepresentationProbe(tokens=512),
        FisherProxyProbe(quantities=_FISHER),
    ]


def study() -> list[Probe]:
    """Every quantity that the probes can give."""
    return [
        *_cheap(),
        AttentionProbe(quantities=ALL_QUANTITIES),
        OutputProbe(quantities=(*_OUTPUT, *_TRAINING)),
        RepresentationProbe(layers="all", quantities=_REPRESENTATION),
        FisherProxyProbe(quantities=_FISHER),
        ExampleGradientProbe(quantities=_EXAMPLES),
        TemperatureProbe(),
    ]


PRESETS: dict[str, Callable[[], list[Probe]]] = {
    "default": default,
    "grokking": grokking,
    "llm": llm,
    "study": study,
}


_PROBES = [type(probe).__name__ for probe in default()]


def resolve(preset: str | Sequence[Probe], *, fixed: bool = False) -> list[Probe]:
    """The probes of a preset's name, or the given ones; a ``ValueError`` says what would be right.

    Args:
        preset: a name, or probes.
        fixed: whether there is a fixed batch; a preset by name then reads the geometry of attention on it as well.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            near = difflib.get_close_matches(preset, PRESETS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"preset={preset!r} is unknown{hint} Presets: {', '.join(PRESETS)}, or a list of probes")
        geometry = GeometryProbe(quantities=ALL_GEOMETRY) if preset == "study" else GeometryProbe()
        return [*PRESETS[preset](), *([geometry] if fixed else [])]
    if not isinstance(preset, Iterable):
        raise ValueError(f"preset={preset!r}: give a name ({', '.join(PRESETS)}) or a list of probes")
    probes = list(preset)
    for probe in probes:
        if isinstance(probe, str):
            near = difflib.get_close_matches(probe, [*_PROBES, *PRESETS], n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}()?" if near else ""
            raise ValueError(f"{probe!r} in the list is a word, not a probe{hint} Probes: {', '.join(_PROBES)}")
        if isinstance(probe, type) or not callable(getattr(probe, "listen", None)):
            raise ValueError(f"{probe!r} is not a probe: give objects such as AttentionProbe(rows=64)")
    names = [type(probe).__name__ for probe in probes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{name} is given {names.count(name)} times: one probe of a kind, with all of its quantities"
            )
    return probes
