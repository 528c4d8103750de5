"""Certificates: the proofs hold, the numbers are independent of mmcore's, and damage is noticed."""

import gzip
import json
from decimal import Decimal

import numpy as np
import pytest
from click.testing import CliRunner
from flint import arb, arb_mat

from parity.commands.main import main
from parity.compare.run import run
from parity.engines.load import load
from parity.exact.balls import NotEnclosed, cholesky, precision
from parity.exact.lmm import NotCertifiable, Point, Products, charts_at, parameters
from parity.exact.newton import complementarity, krawczyk, proved_minimum
from parity.exact.prove import prove
from parity.proof import certify
from parity.proof.certify import decimals
from parity.references.certificates import CertificateError, certificates, read_certificate
from parity.resources import certified_dir
from parity.schema.case import Case, load_cases, select
from parity.schema.quantities import NAMES, REGISTRY, of_kind

CASES = {case.name: case for case in load_cases()}
STORED = {found.case.name: found for found in certificates()}


def _design(name: str):
    return certify.design_of(CASES[name])


# --- what is there ------------------------------------------------------------------------------------


def test_certificates_cover_what_was_promised():
    cases = [found.case for found in STORED.values()]
    assert len(cases) >= 25
    tags = {tag for case in cases for tag in case.tags}
    assert {"slope", "crossed", "nested", "singular", "weights", "offset", "ml", "doublebar"} <= tags
    assert {case.reml for case in cases} == {True, False}
    assert sum("singular" in case.tags for case in cases) >= 2


def test_certificates_hold_the_registry():
    """All but least squares within groups, which has no theta in it."""
    of_groups = ("ranef_ls", "ranef_ls_std", "compare_eb_ls", "fitted_ls", "resid_ls")
    assert set(certify.not_certified()) & set(of_kind("lmm")) == set(of_groups)


@pytest.mark.parametrize("name", STORED)
def test_certificate_is_for_the_case_as_it_is(name):
    found, design = STORED[name], _design(name)
    assert found.case.id == CASES[name].id
    assert np.array_equal(found.doubles("y_response"), design.y)
    # polynomials are computed: their last bit belongs to the machine's BLAS
    assert np.allclose(
        found.doubles("x_matrix"), design.X.ravel(), rtol=0, atol=4e-15 * np.abs(design.X).max()
    )
    if "poly" not in name:
        assert found.design_sha256 == certify.design_hash(design)


@pytest.mark.parametrize("name", STORED)
def test_numbers_have_25_digits(name):
    for quantity, number in STORED[name].values.items():
        assert Decimal(number.relative) <= Decimal("1e-25"), quantity
        numbers = [Decimal(text) for text in number.values if text != "NaN"]
        scale = max((abs(x) for x in numbers), default=Decimal(1))
        assert Decimal(number.absolute) <= Decimal("1e-25") * max(scale, Decimal(1)), quantity


def test_small_models_have_every_deletion():
    found = STORED["pastes_nested_reml"]
    assert len(found.labels("deletion_fixef")) == 60
    assert len(found.labels("deletion_varcomp_group")) == 3 * (30 + 10)
    assert np.isfinite(found.doubles("cooks_distance_refit_group")).all()


# --- the proofs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["dyestuff_reml", "dyestuff2_singular_ml", "rail_ml", "penicillin_crossed_reml"]
)
def test_certificate_is_proved_again(name):
    """The whole computation, anew: the same numbers to the last of 28 digits."""
    made = certify.certify(CASES[name])
    assert certify.differences(certify.certificate_path(certified_dir(), name), made) == ()


@pytest.mark.parametrize(
    "name", [name for name in STORED if name[:4] in ("slee", "oats") and "poly" not in name]
)
def test_stored_theta_is_the_only_stationary_point_about(name):
    """From the file's own decimals: Krawczyk about the stored theta, Hessian positive definite."""
    found, design = STORED[name], _design(name)
    with precision(320):
        data = Products(design, CASES[name].reml)
        theta = [arb(text) for text in found.values["theta"].values]
        charts, start = [], 0
        for chart in charts_at(design, [np.eye(t.n_effects) for t in design.terms], 1e-12):
            charts.append(chart)
            start += len(chart.free)
        assert start == len(theta)

        def objective(par):
            return Point(data, tuple(charts), tuple(par))

        box = krawczyk(objective, [t.mid() for t in theta], arb(10) ** -25)
        assert box is not None
        cholesky(objective(box).hessian, "Hessian")
        assert objective(box).criterion.overlaps(
            arb(found.values["criterion"].values[0]) + arb(0, arb(10) ** -24)
        )


def test_krawczyk_does_not_prove_what_is_false():
    design = _design("dyestuff_reml")
    with precision(320):
        data = Products(design, True)
        charts = charts_at(design, [np.eye(1)], 1e-12)

        def objective(par):
            return Point(data, charts, tuple(par))

        assert krawczyk(objective, [arb(2)], arb("0.01")) is None  # no stationary point there
        with pytest.raises(NotEnclosed, match="settle"):
            proved_minimum(objective, [arb("1e6")], 30)


def test_boundary_is_proved_only_where_the_criterion_rises():
    """At theta = 0 Dyestuff falls into the interior and Dyestuff2 rises."""
    slopes = {}
    for name in ("dyestuff_reml", "dyestuff2_singular_reml"):
        design = _design(name)
        with precision(320):
            charts = charts_at(design, [np.zeros((1, 1))], 1e-12)
            at = Point(Products(design, True), charts, ())
            try:
                slopes[name] = complementarity(at.score[0], at.factors[0], charts[0].order)
            except NotEnclosed:
                slopes[name] = None
    assert slopes["dyestuff_reml"] is None
    assert slopes["dyestuff2_singular_reml"] > 9


def test_rank_one_covariance_inside_a_larger_one():
    """A slope without variance of the intercept: the chart takes the slope first."""
    case = Case(name="x", data="sleepstudy", formula="Reaction ~ Days + (Days | Subject)")
    design = certify.design_of(case)
    L = np.array([[0.0, 0.0], [0.0, 0.4]])
    (chart,) = charts_at(design, [L], 1e-12)
    assert (chart.order, chart.rank, chart.free) == ((1, 0), 1, ((1, 0), (0, 0)))
    with precision(200):
        par = parameters((chart,), [L])
        at = Point(Products(design, True), (chart,), par)
        assert [float(x) for x in at.sigmas[0].entries()] == pytest.approx([0, 0, 0, 0.16])


def test_derivatives_are_those_of_the_criterion():
    """Gradient and Hessian against differences at 100 digits: REML and ML, weights, three effects."""
    for name in ("sleepstudy_weights_reml", "machines_factor_slope_reml", "sleepstudy_quadratic_ml"):
        design = _design(name)
        with precision(400):
            data = Products(design, CASES[name].reml)
            L = [
                np.tril(0.3 + 0.1 * np.arange(t.n_effects**2).reshape(t.n_effects, -1)) for t in design.terms
            ]
            charts = charts_at(design, L, 1e-12)
            x = parameters(charts, L)
            h = arb(10) ** -30

            def at(i, step, x=x, charts=charts, data=data):
                return Point(data, charts, tuple(v + step * (j == i) for j, v in enumerate(x)))

            here = Point(data, charts, x)
            for i in range(len(x)):
                up, down = at(i, h), at(i, -h)
                slope = (up.criterion - down.criterion) / (2 * h)
                assert float(slope) == pytest.approx(float(here.gradient[i, 0]), rel=1e-14)
                bends = (up.gradient - down.gradient) / (2 * h)
                for j in range(len(x)):
                    assert float(bends[j, 0]) == pytest.approx(
                        float(here.hessian[i, j]), rel=1e-13, abs=1e-12
                    )


def test_criterion_is_the_literal_one():
    """-2 log-likelihood from V itself, by determinants and a dense solve, without any of the identities."""
    design = _design("sleepstudy_weights_offset_reml")
    with precision(320):
        data = Products(design, True)
        L = [np.array([[0.7]]), np.array([[0.2]])]
        charts = charts_at(design, L, 1e-12)
        at = Point(data, charts, parameters(charts, L))
        n, p = data.n, data.p
        W_inverse = arb_mat(n, n)
        for i, w in enumerate(data.weights):
            W_inverse[i, i] = 1 / w
        V = W_inverse + data.Z * at.Sigma * data.Z.transpose()
        Vi = V.inv()
        XtVX = data.X.transpose() * Vi * data.X
        beta = XtVX.inv() * (data.X.transpose() * Vi * data.y)
        r = data.y - data.X * beta
        s2 = (r.transpose() * Vi * r)[0, 0] / (n - p)
        literal = V.det().log() + XtVX.det().log() + (n - p) * (1 + (2 * arb.pi() * s2).log())
        assert literal.overlaps(at.criterion)
        assert float(literal.rad()) < 1e-40


# --- the engine and its lane --------------------------------------------------------------------------


def test_mmcore_has_six_digits_of_everything():
    cases = [found.case for found in STORED.values()]
    report = run(cases, load("mmcore"), [load("certified")], lanes=["certified"])
    assert report.exit_code == 0, report.headline
    judged = [row for row in report.rows if row.digits is not None]
    assert len(judged) > 2000
    worst = min(judged, key=lambda row: row.digits)
    assert worst.digits > 6, f"{worst.case} {worst.quantity}: {worst.digits}"
    at_the_top = [row for row in judged if row.quantity in ("criterion", "fixef")]
    assert min(row.digits for row in at_the_top) > 9


@pytest.mark.live
def test_lme4_has_six_digits_of_everything():
    """The polished optimum of lme4, which shares no code with what made the certificates."""
    names = ("sleepstudy_slope_reml", "pastes_nested_ml", "penicillin_crossed_reml", "dyestuff2_*_reml")
    once = [name for name in NAMES if not REGISTRY[name].refits]
    live = load("live")
    try:
        chosen = select(load_cases(), names)
        report = run(chosen, live, [load("certified")], lanes=["certified"], quantities=once)
    finally:
        live.close()
    assert report.exit_code == 0, report.headline
    assert min(row.digits for row in report.rows if row.digits is not None) > 6


def test_no_start_of_mmcore_leads_below_a_certified_criterion():
    for found in STORED.values():
        certified = float(found.values["criterion"].values[0])
        assert min(found.proof["criteria that the starts led to"]) >= certified - 1e-9


def test_engine_has_no_certificate_or_a_foreign_one(tmp_path):
    from parity.engines.certified import Certified

    engine = Certified(tmp_path)
    assert engine.run(CASES["dyestuff_reml"], NAMES).status == "unsupported"
    path = certify.write_certificate(tmp_path, STORED["dyestuff_reml"])
    assert engine.run(CASES["dyestuff_reml"], NAMES).status == "ok"
    assert engine.run(CASES["dyestuff_reml"], NAMES, theta=np.array([0.5])).status == "unsupported"
    (tmp_path / "rail_reml.json").write_bytes(path.read_bytes())
    answer = engine.run(CASES["rail_reml"], NAMES)
    assert (answer.status, "another content" in answer.message) == ("missing", True)


# --- files --------------------------------------------------------------------------------------------


def test_damage_is_noticed(tmp_path):
    path = certify.write_certificate(tmp_path, STORED["rail_ml"])
    assert read_certificate(path) == STORED["rail_ml"]
    text = path.read_text()
    digit = STORED["rail_ml"].values["theta"].values[0]
    path.write_text(text.replace(digit, digit[:-1] + ("1" if digit[-1] != "1" else "2")))
    with pytest.raises(CertificateError, match="checksum"):
        read_certificate(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(CertificateError, match="damaged"):
        read_certificate(path)
    with pytest.raises(CertificateError, match="no certificate"):
        read_certificate(tmp_path / "none.json")


def test_large_certificates_are_compressed_and_read_back(tmp_path):
    path = certify.write_certificate(tmp_path, STORED["sleepstudy_slope_reml"])
    assert path.suffixes == [".json", ".gz"]
    assert read_certificate(path) == STORED["sleepstudy_slope_reml"]
    path.write_bytes(gzip.compress(json.dumps({"schema": 1}).encode()))
    with pytest.raises(CertificateError, match="damaged"):
        read_certificate(path)


def test_decimals_are_bounds():
    with precision(300):
        texts, relative, absolute = decimals([arb(2).sqrt(), arb(-1) / 3, arb(0), arb(0.1), arb("nan")])
    assert texts[0] == "1.414213562373095048801688724"
    assert texts[1] == "-0.3333333333333333333333333333"
    assert texts[2:] == ["0", "0.1000000000000000055511151231", "NaN"]
    assert Decimal(0) < Decimal(relative) < Decimal("1e-27")
    assert Decimal(0) < Decimal(absolute) < Decimal("1e-27")
    with pytest.raises(NotEnclosed):
        decimals([arb(1, 1e-10)])


# --- what cannot be certified -------------------------------------------------------------------------


def test_what_is_not_certified_says_why():
    with pytest.raises(CertificateError, match="not a linear mixed model"):
        certify.certify(Case(name="x", data="sleepstudy", formula="Reaction ~ Days"))
    design = certify.design_of(
        Case(name="x", data="sleepstudy", formula="Reaction ~ Days + cs(Days | Subject)")
    )
    with pytest.raises(NotCertifiable, match="unstructured"):
        prove(design, reml=True, digits=20)


def test_command_proves_again_and_refuses_to_overwrite(tmp_path):
    stored = STORED["dyestuff_reml"]
    certify.write_certificate(tmp_path, stored)
    again = CliRunner().invoke(main, ["certify", "--out", str(tmp_path)])
    assert (again.exit_code, again.output.split()) == (0, ["same", "dyestuff_reml"])
    values = dict(stored.values) | {"sigma": stored.values["criterion"]}
    other = certify.signed(stored, values=values)
    certify.write_certificate(tmp_path, other)
    left = CliRunner().invoke(main, ["certify", "dyestuff_reml", "--out", str(tmp_path)])
    assert left.exit_code == 1
    assert "sigma: other numbers" in left.output
    assert read_certificate(tmp_path / "dyestuff_reml.json") == other
    empty = CliRunner().invoke(main, ["certify", "--out", str(tmp_path / "none")])
    assert empty.exit_code == 2
