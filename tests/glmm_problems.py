"""Small generalized problems of every shape, with dense twins: what the tests of modes and criteria stand on."""

import numpy as np

from mmcore.covariance.blocks import BlockCovariance, structure_for
from mmcore.families.names import family_named
from mmcore.glmm.laplace import Laplace
from mmcore.kernels.basis import orthonormal_basis
from mmcore.kernels.products import Block
from mmcore.kernels.weighted.choose import system_for
from mmcore.kernels.weighted.crossed import CrossedSystem
from mmcore.kernels.weighted.nested import NestedSystem
from mmcore.kernels.weighted.one_factor import OneFactorSystem

N = 120
RNG = np.random.default_rng(17)
ONE, X1, X2 = np.ones(N), RNG.normal(size=N), RNG.normal(size=N)
G, H, K = (RNG.integers(0, levels, N) for levels in (12, 7, 5))
INNER = np.concatenate([np.arange(24), RNG.integers(0, 24, N - 24)])
OUTER = np.arange(24) % 4
TOP = np.array([0, 1, 0, 1])


def block(group, term, codes, levels, *columns):
    return Block(group, (term,), codes, levels, np.array(columns))


SHAPES = {
    "intercept": (OneFactorSystem, [block("g", 0, G, 12, ONE)]),
    "scalar slope": (OneFactorSystem, [block("g", 0, G, 12, X1)]),
    "vector": (OneFactorSystem, [block("g", 0, G, 12, ONE, X1)]),
    "three": (OneFactorSystem, [block("g", 0, G, 12, ONE, X1, X2)]),
    "nested": (NestedSystem, [block("a", 0, INNER, 24, ONE), block("b", 1, OUTER[INNER], 4, ONE)]),
    "nested vector": (
        NestedSystem,
        [block("a", 0, INNER, 24, ONE, X1), block("b", 1, OUTER[INNER], 4, ONE, X2),
         block("c", 2, TOP[OUTER[INNER]], 2, ONE)],
    ),
    "crossed": (CrossedSystem, [block("g", 0, G, 12, ONE), block("h", 1, H, 7, ONE), block("k", 2, K, 5, ONE)]),
    "crossed vector": (CrossedSystem, [block("g", 0, G, 12, ONE, X1), block("h", 1, H, 7, ONE, X2)]),
}  # fmt: skip


def covariance(blocks):
    return BlockCovariance([b.terms for b in blocks], [structure_for("us", b.K, False) for b in blocks])


def dense_Z(blocks):
    parts = []
    for b in blocks:
        Z = np.zeros((N, b.L * b.K))
        for a in range(b.K):
            Z[np.arange(N), b.codes * b.K + a] = b.columns[a]
        parts.append(Z)
    return np.hstack(parts)


def dense_Sigma(blocks, Sigma):
    out = np.zeros((sum(b.L * b.K for b in blocks),) * 2)
    at = 0
    for b, S in zip(blocks, Sigma, strict=True):
        size = b.L * b.K
        out[at : at + size, at : at + size] = np.kron(np.eye(b.L), S)
        at += size
    return out


FAMILIES = [
    (kind, link)
    for kind in ("gaussian", "binomial", "poisson", "negative.binomial", "Gamma", "inverse.gaussian")
    for link in family_named(kind).links
    if (kind, link) != ("gaussian", "identity")
]


def problem(kind, link, shape, cls=Laplace, seed=5, **options):
    """An objective and a point at which its modes are well inside the domain."""
    rng = np.random.default_rng(seed)
    family = family_named(kind, link, **({"theta": 2.3} if kind == "negative.binomial" else {}))
    level = {"binomial": 0.35, "gaussian": 2.0, "Gamma": 2.0, "inverse.gaussian": 2.0}.get(kind, 3.0)
    mu, w = np.full(N, level), rng.uniform(0.5, 1.5, N)
    if kind == "binomial":
        w = rng.integers(1, 5, N).astype(float)
        y = rng.binomial(w.astype(int), mu) / w
    elif kind in ("poisson", "negative.binomial"):
        y = rng.poisson(mu).astype(float)
    else:
        y = np.maximum(rng.gamma(8.0, level / 8.0, N), 0.3)
    eta = float(family.link.eta(np.array([level]))[0])
    scale = 0.3 if link in ("log", "logit", "probit", "cloglog", "cauchit") else 0.1 * abs(eta)
    if (kind, link) == ("binomial", "log"):
        scale = 0.1
    Q, R = orthonormal_basis(np.array([ONE, 0.2 * X2]))
    blocks = SHAPES[shape][1]
    cov = covariance(blocks)
    offset = 0.02 * scale * X1
    objective = cls(family.bind(y, w), Q, offset, system_for(blocks), cov, **options)
    par = scale * (cov.start() + rng.uniform(-0.1, 0.1, cov.n_par))
    gamma = R @ np.array([eta, 0.02 * scale])
    return objective, gamma, par, scale


def differences(objective, x, scale):
    """Fourth-order central differences of the objective."""
    out = np.empty(len(x))
    for i in range(len(x)):
        h = 2e-4 * max(abs(float(x[i])), scale)
        e = np.zeros(len(x))
        e[i] = h
        f = [objective.at(x + k * e, 1e-26).f for k in (-2, -1, 1, 2)]
        out[i] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    return out
