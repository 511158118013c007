"""Credit and used credit on worked examples, and the densities against numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from rein.errors import UserError
from rein.feedback.credit import Gamma, Uniform, credit, used_credit

WINDOWS = [(0.2, 0.8), (0.15, 0.4), (0.2, 0.9), (0.28, 4.0), (0.0, 0.5)]
DURATIONS_S = [0.001, 0.05, 0.2, 0.25, 0.6, 0.8, 1.2, 4.0]
GAMMAS = [(2.0, 0.28), (1.0, 0.3), (3.5, 0.1), (0.7, 0.5)]


def overlap_credit(low: float, high: float, start: float, end: float, press: float) -> float:
    """Sheet 2.4: how much of the time [press − end, press − start] lies in the window, per width of the window."""
    return max(0.0, min(press - start, high) - max(press - end, low)) / (high - low)


def trapezium(low: float, high: float, start: float, end: float, now: float) -> float:
    """Sheet 2.5: the area of a trapezium up to now; its ramp down is m·x − x²/2."""
    wide, long = high - low, end - start
    t, m, flat = now - (start + low), min(wide, long), abs(wide - long)
    x = min(m, max(0.0, t - m - flat))
    past = min(m, max(0.0, t)) ** 2 / 2 + min(flat, max(0.0, t - m)) * m + (m * x - x * x / 2)
    return past / (m * (m + flat))


@pytest.mark.parametrize(("low", "high"), WINDOWS)
@pytest.mark.parametrize("duration_s", DURATIONS_S)
@pytest.mark.parametrize("start", [0.0, 17.3])
def test_used_credit_is_the_trapezium(low, high, duration_s, start):
    for now in start + np.linspace(-0.1, high + duration_s + 0.1, 101):
        used = used_credit(Uniform(low, high), start, start + duration_s, now)
        assert used == pytest.approx(trapezium(low, high, start, start + duration_s, now), abs=1e-11)


@pytest.mark.parametrize(("low", "high"), WINDOWS)
@pytest.mark.parametrize("duration_s", DURATIONS_S)
def test_credit_of_the_uniform_density_is_the_overlap_with_the_window(low, high, duration_s):
    for press in np.linspace(0.0, high + duration_s + 0.1, 101):
        expected = overlap_credit(low, high, 0.0, duration_s, press)
        assert credit(Uniform(low, high), 0.0, duration_s, press) == pytest.approx(expected, abs=1e-12)


def test_the_ramp_down_is_not_the_released_triangle():
    # 200 ms steps: three quarters down the ramp all but 1/16 of its area is past, where x²/2 would say 9/16.
    used = used_credit(Uniform(0.2, 0.8), 0.0, 0.2, 0.95)
    assert 1 - used == pytest.approx(0.05**2 / 2 / 0.12)


def test_a_step_of_200_ms_gets_a_third_of_a_press_at_most():
    shares = [credit(Uniform(0.2, 0.8), 0.0, 0.2, press) for press in np.linspace(0.0, 1.2, 601)]
    assert max(shares) == pytest.approx(1 / 3)
    assert sum(share > 0.3333 for share in shares) > 190  # the flat of the trapezium, 0.4 s of 1.2


@pytest.mark.parametrize("density", [Uniform(0.2, 0.8), Uniform(0.15, 0.4), Gamma(2.0, 0.28), Gamma(3.5, 0.1)])
@pytest.mark.parametrize("duration_s", [0.2, 0.8])
def test_used_credit_is_the_integral_of_credit_over_the_time_of_the_press(density, duration_s):
    kinks = [0.15, 0.2, 0.4, 0.8, 0.35, 0.6, 0.95, 1.0, 1.2, 1.6]
    for now in (0.1, 0.3, 0.45, 0.9, 1.4, 2.5):
        area, _ = quad(lambda t: credit(density, 0.0, duration_s, t), 0.0, now, points=[k for k in kinks if k < now])
        assert used_credit(density, 0.0, duration_s, now) == pytest.approx(area / duration_s, abs=1e-9)


def test_a_step_without_length_is_used_up_when_it_ends():
    assert used_credit(Uniform(), 1.0, 1.0, 0.9) == 0.0
    assert used_credit(Uniform(), 1.0, 1.0, 1.0) == 1.0


@pytest.mark.parametrize(("shape", "scale_s"), GAMMAS)
def test_the_gamma_density_against_numerical_integration(shape, scale_s):
    density = Gamma(shape, scale_s)

    def pdf(x):
        return x ** (shape - 1) * math.exp(-x / scale_s) / (math.gamma(shape) * scale_s**shape)

    for delay_s in (0.01, 0.1, 0.28, 0.6, 1.0, 2.5):
        assert density.cdf(delay_s) == pytest.approx(quad(pdf, 0.0, delay_s)[0], rel=1e-7)
        assert density.cdf_integral(delay_s) == pytest.approx(quad(density.cdf, 0.0, delay_s)[0], rel=1e-7)
    for delay_s in (-1.0, 0.0):
        assert density.cdf(delay_s) == density.cdf_integral(delay_s) == 0.0


def test_the_gamma_density_of_shape_2_in_closed_form():
    for x in (0.05, 0.3, 1.0, 3.0):
        assert Gamma(2.0, 0.28).cdf(x) == pytest.approx(1 - (1 + x / 0.28) * math.exp(-x / 0.28), rel=1e-12)


@pytest.mark.parametrize(("low", "high"), WINDOWS)
def test_the_uniform_density_against_numerical_integration(low, high):
    density = Uniform(low, high)
    for delay_s in (-0.5, 0.1, 0.3, 0.7, 1.0, 5.0):
        kinks = [x for x in (low, high) if 0 < x < delay_s]
        area = quad(density.cdf, 0.0, delay_s, points=kinks)[0] if delay_s > 0 else 0.0
        assert density.cdf_integral(delay_s) == pytest.approx(area, abs=1e-10)


@pytest.mark.parametrize("density", [Uniform(0.2, 0.8), *(Gamma(*numbers) for numbers in GAMMAS)])
def test_inverse_cdf_is_the_inverse_of_cdf(density):
    for probability in (0.001, 0.25, 0.5, 0.75, 0.999):
        assert density.cdf(density.inverse_cdf(probability)) == pytest.approx(probability, rel=1e-9)
    delays = [density.inverse_cdf(p) for p in np.linspace(0.0, 0.99, 50)]
    assert delays == sorted(delays)


def test_the_defaults_are_the_released_ones():
    assert (Uniform().low_s, Uniform().high_s) == (0.2, 0.8)
    assert (Gamma().shape, Gamma().scale_s) == (2.0, 0.28)


@pytest.mark.parametrize("window", [(0.8, 0.2), (0.2, 0.2), (-0.1, 0.5), (0.2, math.inf), (math.nan, 0.8)])
def test_a_window_that_is_none_is_an_error_that_names_the_flags(window):
    with pytest.raises(UserError, match="credit window") as caught:
        Uniform(*window)
    assert "--credit-low-s" in caught.value.fix
    assert "--credit-high-s" in caught.value.fix


@pytest.mark.parametrize("numbers", [(0.0, 0.28), (2.0, 0.0), (-1.0, 0.28), (math.nan, 0.28), (2.0, math.inf)])
def test_a_gamma_density_that_is_none_is_an_error_that_names_the_flags(numbers):
    with pytest.raises(UserError, match="must be above 0") as caught:
        Gamma(*numbers)
    assert "--gamma-shape" in caught.value.fix
    assert "--gamma-scale-s" in caught.value.fix
