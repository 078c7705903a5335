"""What was measured is read after it has landed, in order, and nothing waits before the end."""

import numpy as np
import pytest
import torch

from thermo_monitor.transport import Transport, _Flight


class Landing:
    """Stands for a CUDA event: until it has landed the copy is under way and its memory not to be touched."""

    def __init__(self, host, values):
        self.host, self.values = host, values
        self.landed, self.waited, self.queries = False, False, 0

    def query(self):
        self.queries += 1
        return self.landed

    def land(self):
        self.landed = True
        self.host.copy_(torch.tensor(self.values, dtype=torch.float64))

    def synchronize(self):
        self.waited = True
        self.land()


def flight(transport, step, *values):
    """Send as CUDA would: the host memory holds rubbish until the landing."""
    host = torch.full((len(values),), float("nan"), dtype=torch.float64)
    landing = Landing(host, values)
    transport._flying.append(_Flight(step, f"label {step}", [torch.Size([len(values)])], host, landing))
    return landing


def test_shapes_types_and_labels_arrive():
    transport = Transport()
    tensors = [
        torch.arange(6).reshape(2, 3),
        torch.tensor(0.5, dtype=torch.bfloat16),
        torch.zeros(0, 4),
        torch.tensor([1e300], dtype=torch.float64),
        torch.ones(2, 2, requires_grad=True).t(),
        torch.tensor([True, False]),
    ]
    transport.send(7, {"a": 1}, tensors)
    (arrival,) = transport.arrived()
    assert (arrival.step, arrival.label) == (7, {"a": 1})
    assert [a.shape for a in arrival.arrays] == [tuple(t.shape) for t in tensors]
    for array, tensor in zip(arrival.arrays, tensors, strict=True):
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, tensor.detach().double().numpy())


def test_what_is_sent_is_a_copy():
    transport, tensor = Transport(), torch.ones(3, dtype=torch.float64)
    transport.send(0, None, [tensor])
    tensor.zero_()
    assert transport.arrived()[0].arrays[0].tolist() == [1, 1, 1]


def test_a_step_without_tensors_arrives_too():
    transport = Transport()
    transport.send(3, "label", [])
    assert [(a.step, a.label, a.arrays) for a in transport.arrived()] == [(3, "label", [])]


def test_nothing_is_read_before_it_has_landed_and_order_is_kept():
    transport = Transport()
    first, second = flight(transport, 0, 1.0), flight(transport, 1, 2.0)
    assert transport.arrived() == []
    second.land()
    assert transport.arrived() == []  # it would overtake the first
    first.land()
    arrivals = transport.arrived()
    assert [(a.step, a.arrays[0].tolist()) for a in arrivals] == [(0, [1.0]), (1, [2.0])]
    assert not first.waited
    assert not second.waited
    assert transport.arrived() == []


def test_only_drain_waits():
    transport = Transport()
    landings = [flight(transport, step, float(step)) for step in range(3)]
    assert transport.arrived() == []
    assert [a.arrays[0].tolist() for a in transport.drain()] == [[0.0], [1.0], [2.0]]
    assert all(landing.waited for landing in landings)
    assert transport.drain() == []


def test_the_fake_would_show_a_hasty_reader():
    transport = Transport()
    flight(transport, 0, 1.0)
    assert np.isnan(transport._flying[0].host.numpy()).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_device():
    transport, tensors = Transport(), [torch.arange(5.0, device="cuda"), torch.ones((), device="cuda")]
    transport.send(0, None, tensors)
    transport.drain()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(200_000_000)
        transport.send(1, None, tensors)
        assert transport.arrived() == []
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert transport.drain()[0].arrays[0].tolist() == [0, 1, 2, 3, 4]
