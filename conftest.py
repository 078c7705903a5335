"""What has to be settled before the first test is collected."""

import importlib.util
import os

import torch

# Triton reads this when a kernel is defined: without a device its interpreter runs the kernels.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

collect_ignore = [] if importlib.util.find_spec("triton") else ["thermo_monitor/kernels/attention.py"]
