import pytest
import torch

from thermo_monitor.probes import hub
from thermo_monitor.probes.routes import modes


@pytest.fixture(autouse=True)
def one_seed():
    """The same weights in every test; and after it nobody listens."""
    torch.manual_seed(0)
    yield
    assert hub.ACTIVE == ()
    assert modes._stack._len_torch_function_stack() == 0
