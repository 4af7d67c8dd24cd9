"""Signal equations against magnetisation followed pulse by pulse."""

from __future__ import annotations

import numpy as np
import pytest

from shiftproof.scenarios.mr_signal import (
    DENSITY,
    TISSUES,
    InversionRecovery,
    Mprage,
    SpinEcho,
    SpoiledGradientEcho,
    Tissue,
    tissue,
)

GREY = Tissue(t1_ms=1300.0, t2_ms=90.0, density=0.8, static_rate=0.004)


def recovered(mz: float, time_ms: float, t1_ms: float) -> float:
    """Free longitudinal recovery towards 1 by small explicit steps, not by an exponential."""
    steps = max(1, int(time_ms / 0.05))
    for _ in range(steps):
        mz += (1 - mz) * (time_ms / steps) / t1_ms
    return mz


def test_mprage_equals_magnetisation_followed_until_it_repeats() -> None:
    sequence = Mprage(tr_ms=1500, ti_ms=600, te_ms=3.0, flip_deg=9, spacing_ms=8.0, pulses=100)
    angle, mz, signal = np.deg2rad(9), 1.0, 0.0
    for _ in range(6):
        mz = recovered(-0.96 * mz, 600 - 50 * 8.0, GREY.t1_ms)
        for pulse in range(100):
            if pulse == 50:
                signal = mz * np.sin(angle)
            mz = recovered(mz * np.cos(angle), 8.0, GREY.t1_ms)
        mz = recovered(mz, 1500 - 600 - 50 * 8.0, GREY.t1_ms)
    expected = 0.8 * signal * np.exp(-3.0 * (1 / 90 + 0.004))
    assert sequence.signal(GREY) == pytest.approx(expected, rel=2e-3)


def test_spoiled_gradient_echo_equals_many_pulses() -> None:
    mz, angle = 1.0, np.deg2rad(25)
    for _ in range(400):
        signal = mz * np.sin(angle)
        mz = recovered(mz * np.cos(angle), 20.0, GREY.t1_ms)
    expected = 0.8 * signal * np.exp(-5.0 * (1 / 90 + 0.004))
    assert SpoiledGradientEcho(tr_ms=20, te_ms=5, flip_deg=25).signal(GREY) == pytest.approx(expected, rel=1e-3)


def test_spin_echo_and_inversion_recovery_equal_free_recovery() -> None:
    echo = 0.8 * recovered(0.0, 600, GREY.t1_ms) * np.exp(-12 / 90)
    assert SpinEcho(tr_ms=600, te_ms=12).signal(GREY) == pytest.approx(echo, rel=1e-3)
    # The 90 degree pulse of one period leaves nothing, so that the next inversion starts from the recovery of
    # what is left of TR after TI.
    mz = recovered(-recovered(0.0, 9000 - 2500, GREY.t1_ms), 2500, GREY.t1_ms)
    sequence = InversionRecovery(tr_ms=9000, ti_ms=2500, te_ms=110)
    assert sequence.signal(GREY) == pytest.approx(0.8 * mz * np.exp(-110 / 90), rel=2e-3)


def test_signal_is_negative_before_an_inversion_has_recovered() -> None:
    assert InversionRecovery(tr_ms=9000, ti_ms=300, te_ms=10).signal(GREY) < 0


def test_t1_weighting_orders_the_tissues_and_flair_nulls_fluid_and_swaps_grey_and_white() -> None:
    def contrast(sequence, field_t: float) -> dict[str, float]:
        values = {n: float(sequence.signal(tissue(n, field_t))) for n in ("csf", "grey", "white")}
        return {n: v / values["white"] for n, v in values.items()}

    for sequence, field_t in (
        (Mprage(tr_ms=2300, ti_ms=900, te_ms=3.0, flip_deg=9), 3.0),
        (SpoiledGradientEcho(tr_ms=24, te_ms=6, flip_deg=30), 1.5),
        (SpinEcho(tr_ms=600, te_ms=12), 3.0),
    ):
        t1 = contrast(sequence, field_t)
        assert t1["csf"] < t1["grey"] < 0.9
    flair = contrast(InversionRecovery(tr_ms=9000, ti_ms=2500, te_ms=110), 3.0)
    assert abs(flair["csf"]) < 0.15
    assert 1.05 < flair["grey"] < 1.4


def test_arrays_broadcast_and_every_tissue_is_complete() -> None:
    many = Tissue(np.array([800.0, 1300.0]), np.array([70.0, 90.0]), np.array([0.7, 0.8]), 0.004)
    assert Mprage(tr_ms=2300, ti_ms=900, te_ms=3.0, flip_deg=9).signal(many).shape == (2,)
    assert set(TISSUES) == set(DENSITY)
    # T1 lengthens with the field in every tissue with water.
    assert all(TISSUES[n][3.0][0] > TISSUES[n][1.5][0] for n in TISSUES)
