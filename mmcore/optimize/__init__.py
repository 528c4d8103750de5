"""Optimizers: Newton with exact derivatives, and a quasi-Newton method."""

from .control import Control, Status
from .newton import FEW, Objective, Optimum, is_sharp, minimize

__all__ = ["FEW", "Control", "Objective", "Optimum", "Status", "is_sharp", "minimize"]
