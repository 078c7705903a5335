import pytest
import torch
from hypothesis import HealthCheck, settings

# The same examples on every machine and in every run; no time limit, because a busy machine is not a wrong formula.
settings.register_profile(
    "physics",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("physics")


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)
