"""Optimizers whose memories are real memories: drop-in ``torch.optim`` classes (O1-O20)."""

from nestlearn.optim.adam import Adam
from nestlearn.optim.deep import DeepMomentum
from nestlearn.optim.deep_adam import DeepAdam
from nestlearn.optim.delta_descent import DeltaGradientDescent
from nestlearn.optim.layer_momentum import LayerMomentum
from nestlearn.optim.momentum import DeltaMomentum, GradientDescent, Momentum, PreconditionedMomentum
from nestlearn.optim.muon import M3, Muon
from nestlearn.optim.nested import Nested
from nestlearn.optim.optimizer import Optimizer
from nestlearn.optim.secant import SecantMomentum
from nestlearn.optim.soap import SOAP, SOAPMuon
from nestlearn.optim.tables import tables

__all__ = [
    "M3",
    "SOAP",
    "Adam",
    "DeepAdam",
    "DeepMomentum",
    "DeltaGradientDescent",
    "DeltaMomentum",
    "GradientDescent",
    "LayerMomentum",
    "Momentum",
    "Muon",
    "Nested",
    "Optimizer",
    "PreconditionedMomentum",
    "SOAPMuon",
    "SecantMomentum",
    "tables",
]
