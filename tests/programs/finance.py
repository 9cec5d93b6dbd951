"""Prices, rates and risks."""

import math

import numpy as np

from programs.registry import program

RNG = np.random.default_rng(3)


def normal_cdf(x):
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def black_scholes(spot, strike, rate, sigma, t):
    d1 = (math.log(spot / strike) + (rate + 0.5 * sigma**2) * t) / (sigma * math.sqrt(t))
    d2 = d1 - sigma * math.sqrt(t)
    return spot * normal_cdf(d1) - strike * math.exp(-rate * t) * normal_cdf(d2)


@program(100.0, 105.0, 0.03, 0.25, 0.8, wrt=(0, 1, 2, 3, 4), order=2)
def option_price(spot, strike, rate, sigma, t):
    """A call by the formula of Black and Scholes."""
    return black_scholes(spot, strike, rate, sigma, t)


@program(100.0, 95.0, 0.05, 0.3, 1.0, 40, wrt=(0, 1, 2, 3), static="steps", derivative_rtol=1e-5)
def american_put(spot, strike, rate, sigma, t, steps):
    """A put that may be exercised early, on a binomial tree."""
    dt = t / steps
    up = math.exp(sigma * math.sqrt(dt))
    down = 1.0 / up
    p = (math.exp(rate * dt) - down) / (up - down)
    discount = math.exp(-rate * dt)
    value = np.zeros(steps + 1)
    for i in range(steps + 1):
        value[i] = max(strike - spot * up ** (2 * i - steps), 0.0)
    for step in range(steps - 1, -1, -1):
        for i in range(step + 1):
            hold = discount * (p * value[i + 1] + (1 - p) * value[i])
            value[i] = max(hold, strike - spot * up ** (2 * i - step))
    return value[0]


@program(8.5, 100.0, 105.0, 0.03, 0.8, wrt=(0, 1, 2, 3))
def implied_volatility(price, spot, strike, rate, t):
    """By Newton's method; by bisection where that leaves the bracket."""
    lo, hi = 1e-4, 5.0
    sigma = 0.4
    for _ in range(50):
        error = black_scholes(spot, strike, rate, sigma, t) - price
        if abs(error) < 1e-12:
            break
        if error > 0:
            hi = sigma
        else:
            lo = sigma
        d1 = (math.log(spot / strike) + (rate + 0.5 * sigma**2) * t) / (sigma * math.sqrt(t))
        vega = spot * math.sqrt(t) * math.exp(-0.5 * d1**2) / math.sqrt(2 * math.pi)
        new = sigma - error / vega
        sigma = new if lo < new < hi else 0.5 * (lo + hi)
    return sigma


@program(100.0, 100.0, 0.02, 0.3, RNG.normal(size=(16, 12)), wrt=(0, 1, 2, 3, 4))
def asian_option(spot, strike, rate, sigma, noise):
    """A call on the average price, over given paths."""
    paths, steps = noise.shape
    dt = 1.0 / steps
    drift = (rate - 0.5 * sigma**2) * dt
    payoff = 0.0
    for i in range(paths):
        s = spot
        average = 0.0
        for z in noise[i]:
            s *= np.exp(drift + sigma * math.sqrt(dt) * z)
            average += s / steps
        payoff += max(average - strike, 0.0)
    return math.exp(-rate) * payoff / paths


@program(100.0, 102.0, 85.0, 0.25, RNG.normal(size=(12, 20)), wrt=(0, 1, 3))
def barrier_option(spot, strike, barrier, sigma, noise):
    """A call that is void once the price has fallen to a barrier; such paths end early."""

    def payoff(path):
        s = spot
        for z in path:
            s = s * math.exp(-0.5 * sigma**2 * 0.05 + sigma * math.sqrt(0.05) * z)
            if s <= barrier:
                return 0.0
        return max(s - strike, 0.0)

    total = 0.0
    for path in noise:
        total += payoff(path)
    return total / len(noise)


@program(np.array([0.02, 0.025, 0.03, 0.032, 0.035]), 100.0, wrt=(0, 1))
def bond_bootstrap(par_rates, face):
    """Discount factors from the rates of bonds at par, and the price of a bond by them."""
    n = len(par_rates)
    discount = np.zeros(n)
    paid = 0.0
    for k in range(n):
        discount[k] = (1.0 - par_rates[k] * paid) / (1.0 + par_rates[k])
        paid += discount[k]
    zero = discount ** (-1.0 / np.arange(1, n + 1)) - 1.0
    price = face * (0.04 * discount.sum() + discount[-1])
    return zero, price


@program(
    100.0, 0.04, np.array([1.5, 0.04, 0.4, -0.6]), RNG.normal(size=(2, 10, 5)), wrt=(0, 1, 2), derivative_rtol=1e-5
)
def heston(spot, v0, parameters, noise):
    """Paths of a price whose variance is random too, cut off at zero."""
    kappa, theta, xi, rho = parameters
    dt = 1.0 / noise.shape[1]
    s = np.full(noise.shape[2], spot)
    v = np.full(noise.shape[2], v0)
    for z1, z2 in zip(noise[0], noise[1]):
        positive = np.maximum(v, 0.0)
        s = s * np.exp(-0.5 * positive * dt + np.sqrt(positive * dt + 1e-12) * z1)
        v = (
            v
            + kappa * (theta - positive) * dt
            + xi * np.sqrt(positive * dt + 1e-12) * (rho * z1 + np.sqrt(1 - rho**2) * z2)
        )
    return s.mean(), np.maximum(s - 100.0, 0.0).mean()


@program(36.0, 40.0, 0.06, 0.2, RNG.normal(size=(5, 24)), wrt=(0, 1, 2, 3), derivative_rtol=1e-5)
def longstaff_schwartz(spot, strike, rate, sigma, noise):
    """A put with early exercise: the worth of waiting is fitted by a line over the paths in the money."""
    steps, paths = noise.shape
    dt = 1.0 / steps
    s = np.zeros((steps + 1, paths))
    s[0] = spot
    for t in range(steps):
        s[t + 1] = s[t] * np.exp((rate - 0.5 * sigma**2) * dt + sigma * np.sqrt(dt) * noise[t])
    cash = np.maximum(strike - s[steps], 0.0)
    for t in range(steps - 1, 0, -1):
        cash *= np.exp(-rate * dt)
        inside = s[t] < strike
        n = sx = sy = sxx = sxy = 0.0
        for i in range(paths):
            if inside[i]:
                n += 1.0
                sx += s[t, i]
                sy += cash[i]
                sxx += s[t, i] ** 2
                sxy += s[t, i] * cash[i]
        slope = (n * sxy - sx * sy) / (n * sxx - sx * sx + 1e-9)
        offset = (sy - slope * sx) / (n + 1e-9)
        for i in range(paths):
            exercise = strike - s[t, i]
            if inside[i] and exercise > offset + slope * s[t, i]:
                cash[i] = exercise
    return np.exp(-rate * dt) * np.mean(cash)


@program(np.array([-100.0, 30.0, 40.0, 25.0, 30.0]), 0.1, wrt=0)
def internal_rate(flows, guess):
    """The rate at which a series of payments is worth nothing."""
    r = guess
    while True:
        value = slope = 0.0
        for t, c in enumerate(flows):
            value += c / (1 + r) ** t
            slope -= t * c / (1 + r) ** (t + 1)
        step = value / slope
        r -= step
        if abs(step) < 1e-13:
            return r


@program(RNG.normal(size=(12, 3)) * 0.02, np.array([0.5, 0.3, 0.2]), wrt=(0, 1))
def drawdown(returns, weights):
    """The largest loss of a portfolio from its peak."""
    wealth = peak = 1.0
    worst = 0.0
    for row in returns:
        wealth *= 1.0 + np.dot(row, weights)
        peak = max(peak, wealth)
        worst = max(worst, 1.0 - wealth / peak)
    return worst, wealth


@program(np.array([100.0, 101.0, 99.5, 102.0, 103.0, 101.5, 104.0]), 0.3, wrt=(0, 1))
def trading_rule(prices, smoothing):
    """Buys above a smoothed price and sells below it, at a cost."""
    level = prices[0]
    cash, shares, trades = 100.0, 0.0, 0
    for price in prices[1:]:
        level += smoothing * (price - level)
        if price > level and shares == 0.0:
            shares, cash = 0.999 * cash / price, 0.0
            trades += 1
        elif price < level and shares > 0.0:
            cash, shares = 0.999 * shares * price, 0.0
            trades += 1
    return cash + shares * prices[-1], trades
