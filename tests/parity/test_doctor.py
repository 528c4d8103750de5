"""`parity doctor`: what it says about machines that lack something, without needing such a machine."""

import tomllib

import pytest
from packaging.requirements import Requirement

from parity.r import doctor
from parity.r.worker import REnvironment
from parity.resources import PACKAGE

PACKAGES = {"lme4": "1.1.31", "jsonlite": "1.8.4", "car": "3.1.1", "HLMdiag": "0.5.1"}
BRIDGE = {"rpy2": "3.6.6", "rpy2-rinterface": "3.6.5", "rpy2-robjects": "3.6.4"}


@pytest.fixture
def machine(monkeypatch):
    """A machine with the R, the packages and the bridge that a test gives it."""

    def make(r_version="4.2.2", bridge=None, problem=None, **packages):
        here = REnvironment(
            rscript=r_version and "/usr/bin/Rscript",
            r_version=r_version,
            home=None,
            platform=None,
            blas=None,
            lapack=None,
            libraries=(),
            packages=PACKAGES | packages if r_version else {},
            rpy2=BRIDGE if bridge is None else bridge,
            rpy2_problem=problem,
        )
        monkeypatch.setattr(doctor, "r_environment", lambda: here)
        return doctor.diagnose()

    return make


def fact(diagnosis, what):
    (found,) = [fact for fact in diagnosis.facts if fact.what == what]
    return found


def ability(diagnosis, start):
    (found,) = [ability for ability in diagnosis.abilities if ability.what.startswith(start)]
    return found


def test_a_complete_machine_can_do_everything(machine):
    diagnosis = machine()
    assert diagnosis.live
    assert ability(diagnosis, "live HLMdiag").possible
    assert ability(diagnosis, "live lme4").why == "lme4 1.1.31 by rpy2"
    assert not [fact.what for fact in diagnosis.facts if not fact.ok and fact.what != "recordings"]


@pytest.fixture
def in_a_checkout(monkeypatch):
    monkeypatch.setattr(doctor, "_in_checkout", lambda: True)
    monkeypatch.setattr(doctor, "_sudo", lambda: "")


def test_without_r_recorded_references_remain_and_the_command_is_told(machine, in_a_checkout):
    diagnosis = machine(r_version=None)
    assert not diagnosis.live
    assert not fact(diagnosis, "R").ok
    assert fact(diagnosis, "R").mend == "make setup"
    assert ability(diagnosis, "live lme4").why == "missing: R 4.2 or later"


def test_outside_a_checkout_the_command_is_the_system_s(machine, monkeypatch):
    monkeypatch.setattr(doctor, "_in_checkout", lambda: False)
    monkeypatch.setattr(
        doctor.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "apt-get" else None
    )
    assert "apt-get install r-base-core" in fact(machine(r_version=None), "R").mend
    monkeypatch.setattr(doctor, "_in_checkout", lambda: True)
    monkeypatch.setattr(doctor, "_sudo", lambda: "sudo ")
    assert fact(machine(r_version=None), "R").mend.startswith("sudo apt-get install")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert "install.packages" in fact(machine(r_version=None), "R").mend


def test_missing_lme4_stops_live_and_a_missing_extra_package_does_not(machine):
    without_lme4 = machine(lme4=None)
    assert not without_lme4.live
    assert "lme4" in fact(without_lme4, "R package lme4").mend
    without_car = machine(car=None)
    assert without_car.live
    assert fact(without_car, "R package car").ok
    assert "car" in fact(without_car, "R package car").mend


def test_without_hlmdiag_recorded_results_stand_in(machine, in_a_checkout):
    diagnosis = machine(HLMdiag=None)
    assert diagnosis.live
    assert not ability(diagnosis, "live HLMdiag").possible
    assert fact(diagnosis, "R package HLMdiag").mend == "make hlmdiag"


NO_BRIDGE = {"bridge": dict.fromkeys(BRIDGE), "problem": "rpy2 is not installed"}


def test_without_rpy2_rscript_is_the_way_and_needs_jsonlite(machine):
    diagnosis = machine(**NO_BRIDGE)
    assert diagnosis.live
    assert "Rscript" in ability(diagnosis, "live lme4").why
    assert "rpy2-rinterface==3.6.5" in fact(diagnosis, "rpy2").mend
    without_both = machine(**NO_BRIDGE, jsonlite=None)
    assert not without_both.live
    assert "jsonlite" in ability(without_both, "live lme4").why


def test_a_bridge_that_does_not_load_is_reported_with_what_to_install(machine):
    diagnosis = machine(problem="undefined symbol: R_getVar")
    assert not fact(diagnosis, "rpy2").ok
    assert "rpy2==3.6.6" in fact(diagnosis, "rpy2").mend
    assert "R_getVar" in fact(diagnosis, "rpy2").found


@pytest.mark.parametrize(
    ("version", "extra"),
    [((4, 1), ""), ((4, 2), "r"), ((4, 4), "r"), ((4, 5), "r-new"), ((4, 10), "r-new"), ((), "")],
)
def test_the_extra_follows_the_version_of_r(version, extra):
    assert doctor.bridge_extra(version) == extra


def test_an_old_r_is_named_as_too_old(machine):
    diagnosis = machine(r_version="4.1.2")
    assert not diagnosis.live
    assert "4.2 or later" in fact(diagnosis, "R").found


def test_pins_told_are_the_pins_of_the_project():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    for extra in ("r", "r-new"):
        told = [Requirement(pin) for pin in doctor._pins(extra)]
        written = [Requirement(pin) for pin in project["optional-dependencies"][extra]]
        assert {(pin.name, pin.specifier) for pin in told} == {(pin.name, pin.specifier) for pin in written}


@pytest.mark.live
def test_this_machine_is_live():
    diagnosis = doctor.diagnose()
    assert diagnosis.live
    assert fact(diagnosis, "R package lme4").found
