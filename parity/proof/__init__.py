"""The harness tested: certified answers, deliberate faults, calibrated gates."""
