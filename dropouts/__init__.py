"""Layers that take the place of nn.Dropout in any torch network: the dropout family, importing torch alone."""

from dropouts.advanced import Advanced
from dropouts.affine import units_of
from dropouts.bernoulli import Bernoulli
from dropouts.beta_bernoulli import BetaBernoulli, DependentBetaBernoulli
from dropouts.concrete import Concrete
from dropouts.continuous import Continuous
from dropouts.dropblock import DropBlock
from dropouts.dropconnect import DropConnect, mean_weights, rectified_mean, sampled_mean
from dropouts.gaussian import Gaussian
from dropouts.information import Information
from dropouts.plain import Before, plain
from dropouts.sampling import sample, sampling
from dropouts.schedules import Scheduled, early, late, ramp, set_position
from dropouts.sites import READERS, kept_share, penalty, put_before, readers, replace, switch_off
from dropouts.sparse_variational import SparseVariational
from dropouts.standout import Standout
from dropouts.uout import Uout
from dropouts.variational import Variational, VariationalWeights
from dropouts.variational_bayesian import VariationalBayesian, VariationalBayesianWeights

__all__ = [
    "READERS",
    "Advanced",
    "Before",
    "Bernoulli",
    "BetaBernoulli",
    "Concrete",
    "Continuous",
    "DependentBetaBernoulli",
    "DropBlock",
    "DropConnect",
    "Gaussian",
    "Information",
    "Scheduled",
    "SparseVariational",
    "Standout",
    "Uout",
    "Variational",
    "VariationalBayesian",
    "VariationalBayesianWeights",
    "VariationalWeights",
    "early",
    "kept_share",
    "late",
    "mean_weights",
    "penalty",
    "plain",
    "put_before",
    "ramp",
    "readers",
    "rectified_mean",
    "replace",
    "sample",
    "sampled_mean",
    "sampling",
    "set_position",
    "switch_off",
    "units_of",
]
