"""Profiles of the likelihood: one parameter held at a value after another, all others re-optimized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import chi2, norm, t

from ..criterion import Criterion
from ..errors import DataError, FitError, UnsupportedError
from ..fit import Fit
from ..glmfit import GeneralizedFit
from ..kernels import Likelihood
from ..linear import LinearFit
from ..optimize import Control, minimize
from .curve import Curve
from .held import HeldLinear
from .parameters import Parameter, chosen, parameters, values

