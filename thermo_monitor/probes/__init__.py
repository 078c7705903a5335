"""What to listen to in a live model; everything is heard on measured steps only and changes nothing."""

from thermo_monitor.probes.attention import AttentionProbe as AttentionProbe
from thermo_monitor.probes.base import Probe as Probe
from thermo_monitor.probes.example_gradients import ExampleGradientProbe as ExampleGradientProbe
from thermo_monitor.probes.fisher import FisherProbe as FisherProbe
from thermo_monitor.probes.fisher_proxy import FisherProxyProbe as FisherProxyProbe
from thermo_monitor.probes.geometry import GeometryProbe as GeometryProbe
from thermo_monitor.probes.loss import LossProbe as LossProbe
from thermo_monitor.probes.loss_window import LossWindowProbe as LossWindowProbe
from thermo_monitor.probes.noise import NoiseScaleProbe as NoiseScaleProbe
from thermo_monitor.probes.norms import GradientProbe as GradientProbe
from thermo_monitor.probes.norms import WeightProbe as WeightProbe
from thermo_monitor.probes.output import OutputProbe as OutputProbe
from thermo_monitor.probes.representation import RepresentationProbe as RepresentationProbe
from thermo_monitor.probes.routes.explicit import record_attention as record_attention
from thermo_monitor.probes.routes.explicit import record_output as record_output
from thermo_monitor.probes.routes.explicit import record_representation as record_representation
from thermo_monitor.probes.temperature import TemperatureProbe as TemperatureProbe
from thermo_monitor.probes.update import UpdateProbe as UpdateProbe
