"""What a plugin gets to see of a run, through the data provider of both loaders."""

import argparse
import time

import numpy as np
import pytest
from tensorboard.context import RequestContext
from tensorboard.data import server_ingester
from tensorboard.plugins.core.core_plugin import CorePluginLoader

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import Frame, TensorBoardSink, Tick


def serve_python(log_dir, samples=None):
    from tensorboard.backend.event_processing.data_ingester import LocalDataIngester

    parser = argparse.ArgumentParser()
    CorePluginLoader().define_flags(parser)
    arguments = ["--logdir", str(log_dir), "--reload_interval", "0", "--reload_task", "blocking"]
    ingester = LocalDataIngester(parser.parse_args(arguments, argparse.Namespace(samples_per_plugin=samples or {})))
    ingester.start()
    return ingester


def serve_fast(log_dir, samples=None):
    from tensorboard.util.grpc_util import ChannelCredsType

    try:
        binary = server_ingester.get_server_binary()
    except server_ingester.NoDataServerError as error:
        pytest.skip(f"no fast loader on this platform: {error}")
    ingester = server_ingester.SubprocessServerDataIngester(
        binary,
        str(log_dir),
        reload_interval=0,
        channel_creds_type=ChannelCredsType.LOCAL,
        samples_per_plugin=samples,
    )
    ingester.start()
    return ingester


@pytest.mark.parametrize("serve", [serve_python, serve_fast])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_data_provider_lists_and_reads_our_streams(tmp_path, serve):
    sink = TensorBoardSink(tmp_path / "run")
    for step in range(3):
        frame = Frame(step, "attn/entropy", np.full((2, 3), step + 0.5), ("a", "b"))
        sink.write(Tick(step, 1e9 + step, [Reading(step, "loss/train", 0.5)], [frame]))
    sink.event(Event("shift", 2, 1, id="r:1"))
    sink.close()

    ingester = serve(tmp_path)
    provider, asked = ingester.data_provider, {"experiment_id": ""}
    context = RequestContext()

    def listed(plugin):
        return provider.list_tensors(context, plugin_name=plugin, **asked).get("run", {})

    def read(plugin, tag):
        found = provider.read_tensors(context, plugin_name=plugin, downsample=1000, **asked)
        return [(d.step, d.numpy) for d in found["run"][tag]]

    try:
        until = time.monotonic() + 10
        while not listed("thermo_monitor") and time.monotonic() < until:
            time.sleep(0.05)
        assert list(listed("thermo_monitor")) == ["events"]
        assert list(listed("thermo_monitor_heads")) == ["heads/attn/entropy"]
        assert b'"layers": ["a", "b"]' in listed("thermo_monitor_heads")["heads/attn/entropy"].plugin_content
        frames = read("thermo_monitor_heads", "heads/attn/entropy")
        assert [step for step, _ in frames] == [0, 1, 2]
        np.testing.assert_array_equal(frames[2][1], np.full((2, 3), 2.5, np.float16))
        ((step, texts),) = read("thermo_monitor", "events")
        assert (step, Event.from_json(texts[0].decode()).id) == (2, "r:1")
        scalars = provider.read_scalars(context, plugin_name="scalars", downsample=1000, **asked)["run"]
        assert [(d.step, d.value) for d in scalars["thermo/loss/train"]] == [(0, 0.5), (1, 0.5), (2, 0.5)]
        assert "thermo/events" in listed("text")
        pictures = provider.list_blob_sequences(context, plugin_name="images", **asked)["run"]
        assert list(pictures) == ["thermo/heads/attn/entropy"]
    finally:
        if hasattr(ingester, "_stdin_handle"):
            ingester._stdin_handle.close()  # the server ends with it
