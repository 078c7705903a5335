"""The formulas: pure functions on torch tensors.

Tensor in, tensor out. Nothing here reads a value back to the host or makes a shape depend on one, so a caller decides
when the device is waited for; undefined is NaN. Every function can be pasted into a notebook.

* ``adam``: Fisher information from the moments of Adam.
* ``canonical``: one row of logits as a canonical ensemble.
* ``attention``: logits of an attention layer, statistics of its rows, which rows count.
* ``heads``: from rows to heads, with standard errors.
* ``information``: distances of distributions, speed, length and cost of a path of them.
* ``first_law``: heat and work of a change of logits, and work by cause.
* ``rotary``: rotations of queries and keys that cost nothing, and what the others cost.
* ``kappa``: whether a statistic settles as the context grows.
* ``ensemble``: output distribution and loss.
* ``parallel``: entropies of generations side by side.
* ``manifold``: pairings on spheres and tori.
* ``representation``: how many directions the representations use.
* ``information_gain``: what a token adds to those before it.
* ``covariance_distances``: how far the tokens of two sentences lie apart.
* ``moments``: count, mean and centred squares, which merge exactly.
"""

from thermo_monitor.physics.adam import AdamFisher as AdamFisher
from thermo_monitor.physics.adam import adam_fisher as adam_fisher
from thermo_monitor.physics.attention import EvenRows as EvenRows
from thermo_monitor.physics.attention import attention_logits as attention_logits
from thermo_monitor.physics.attention import attention_rows as attention_rows
from thermo_monitor.physics.attention import random_rows as random_rows
from thermo_monitor.physics.attention import valid_rows as valid_rows
from thermo_monitor.physics.canonical import ROW_QUANTITIES as ROW_QUANTITIES
from thermo_monitor.physics.canonical import RowStatistics as RowStatistics
from thermo_monitor.physics.canonical import energy_gap as energy_gap
from thermo_monitor.physics.canonical import entropy as entropy
from thermo_monitor.physics.canonical import entropy_fraction as entropy_fraction
from thermo_monitor.physics.canonical import free_energy as free_energy
from thermo_monitor.physics.canonical import free_energy_gap as free_energy_gap
from thermo_monitor.physics.canonical import freezing_ratio as freezing_ratio
from thermo_monitor.physics.canonical import internal_energy as internal_energy
from thermo_monitor.physics.canonical import log_partition as log_partition
from thermo_monitor.physics.canonical import logit_std as logit_std
from thermo_monitor.physics.canonical import n_eff as n_eff
from thermo_monitor.physics.canonical import p_max as p_max
from thermo_monitor.physics.canonical import row_statistics as row_statistics
from thermo_monitor.physics.canonical import specific_heat as specific_heat
from thermo_monitor.physics.canonical import specific_heat_bound as specific_heat_bound
from thermo_monitor.physics.canonical import specific_heat_norm as specific_heat_norm
from thermo_monitor.physics.covariance_distances import sentence_distances as sentence_distances
from thermo_monitor.physics.ensemble import NextToken as NextToken
from thermo_monitor.physics.ensemble import OutputSums as OutputSums
from thermo_monitor.physics.ensemble import TokenStatistics as TokenStatistics
from thermo_monitor.physics.ensemble import distance_from_equilibrium as distance_from_equilibrium
from thermo_monitor.physics.ensemble import next_token as next_token
from thermo_monitor.physics.ensemble import output_sums as output_sums
from thermo_monitor.physics.ensemble import token_statistics as token_statistics
from thermo_monitor.physics.ensemble import training_temperature as training_temperature
from thermo_monitor.physics.first_law import FirstLaw as FirstLaw
from thermo_monitor.physics.first_law import WorkSplit as WorkSplit
from thermo_monitor.physics.first_law import dissipation as dissipation
from thermo_monitor.physics.first_law import first_law as first_law
from thermo_monitor.physics.first_law import heat as heat
from thermo_monitor.physics.first_law import work as work
from thermo_monitor.physics.first_law import work_split as work_split
from thermo_monitor.physics.gram import centred_gram as centred_gram
from thermo_monitor.physics.gram import normalised_gram as normalised_gram
from thermo_monitor.physics.heads import HeadSums as HeadSums
from thermo_monitor.physics.heads import RowSums as RowSums
from thermo_monitor.physics.heads import head_sums as head_sums
from thermo_monitor.physics.heads import pooled_moments as pooled_moments
from thermo_monitor.physics.heads import reduced_temperature as reduced_temperature
from thermo_monitor.physics.heads import row_sums as row_sums
from thermo_monitor.physics.heads import specific_heat_pooled as specific_heat_pooled
from thermo_monitor.physics.information import fisher_rao_distance as fisher_rao_distance
from thermo_monitor.physics.information import kinetic as kinetic
from thermo_monitor.physics.information import kinetic_depth as kinetic_depth
from thermo_monitor.physics.information import lagrangian as lagrangian
from thermo_monitor.physics.information import log_weights as log_weights
from thermo_monitor.physics.information import path_efficiency as path_efficiency
from thermo_monitor.physics.information import thermodynamic_divergence as thermodynamic_divergence
from thermo_monitor.physics.information import thermodynamic_length as thermodynamic_length
from thermo_monitor.physics.information import weights as weights
from thermo_monitor.physics.information_gain import information_gain as information_gain
from thermo_monitor.physics.information_gain import information_gains as information_gains
from thermo_monitor.physics.information_gain import information_gains_from_gram as information_gains_from_gram
from thermo_monitor.physics.kappa import CANDIDATES as CANDIDATES
from thermo_monitor.physics.kappa import Kappa as Kappa
from thermo_monitor.physics.kappa import OctaveSums as OctaveSums
from thermo_monitor.physics.kappa import kappa_surrogate as kappa_surrogate
from thermo_monitor.physics.kappa import octave_sums as octave_sums
from thermo_monitor.physics.moments import Moments as Moments
from thermo_monitor.physics.moments import moments_of as moments_of
from thermo_monitor.physics.parallel import conditional_entropy as conditional_entropy
from thermo_monitor.physics.parallel import ensemble_gap as ensemble_gap
from thermo_monitor.physics.parallel import jackknife_marginal_entropy as jackknife_marginal_entropy
from thermo_monitor.physics.parallel import logit_variance as logit_variance
from thermo_monitor.physics.parallel import marginal_entropy as marginal_entropy
from thermo_monitor.physics.parallel import marginal_entropy_slope as marginal_entropy_slope
from thermo_monitor.physics.precision import working as working
from thermo_monitor.physics.representation import binder_cumulant as binder_cumulant
from thermo_monitor.physics.representation import effective_rank as effective_rank
from thermo_monitor.physics.representation import head_tail_contrast as head_tail_contrast
from thermo_monitor.physics.representation import participation_ratio as participation_ratio
from thermo_monitor.physics.representation import representation_entropy as representation_entropy
from thermo_monitor.physics.representation import representation_entropy_cap as representation_entropy_cap
from thermo_monitor.physics.representation import representation_entropy_from_gram as representation_entropy_from_gram
from thermo_monitor.physics.representation import spectral_entropy as spectral_entropy
from thermo_monitor.physics.representation import spectrum as spectrum
from thermo_monitor.physics.representation import spectrum_from_gram as spectrum_from_gram
from thermo_monitor.physics.rotary import planes as planes
from thermo_monitor.physics.rotary import rope_flat_residual as rope_flat_residual
from thermo_monitor.physics.rotary import rope_mass as rope_mass
from thermo_monitor.physics.rotary import rope_shift_response as rope_shift_response
from thermo_monitor.physics.rotary import rotate as rotate
