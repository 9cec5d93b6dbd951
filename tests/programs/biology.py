"""Epidemics, populations, neurons, sequences, drugs."""

import math
from dataclasses import dataclass

import numpy as np

from programs.registry import program

RNG = np.random.default_rng(4)


@program(np.array([0.99, 0.01, 0.0]), 0.4, 0.1, 80, wrt=(0, 1, 2), order=2)
def epidemic(state, beta, gamma, days):
    """The SIR model by Euler's method; the day and the height of the peak."""
    s, i, r = state
    peak, day = i, 0
    for t in range(1, days + 1):
        infected = beta * s * i
        recovered = gamma * i
        s, i, r = s - infected, i + infected - recovered, r + recovered
        if i > peak:
            peak, day = i, t
    return peak, day, r


@dataclass
class Community:
    growth: float
    predation: float
    death: float
    capacity: float = 10.0


@program(Community(1.1, 0.4, 0.4), np.array([2.0, 1.0]), 0.01, 150, wrt=(0, 1), static="steps")
def lotka_volterra(p, z, dt, steps):
    """Prey and predators, with a capacity for the prey."""
    path = np.zeros((steps + 1, 2))
    path[0] = z
    for t in range(steps):
        x, y = path[t]
        path[t + 1, 0] = x + dt * x * (p.growth * (1 - x / p.capacity) - p.predation * y)
        path[t + 1, 1] = y + dt * y * (0.25 * p.predation * x - p.death)
    return path[::50]


def rate(v, a, b, c):
    """a (v + b) / (1 - exp(-(v + b) / c)), also where that is 0 / 0."""
    z = (v + b) / c
    if abs(z) < 1e-6:
        return a * c * (1 + z / 2)
    return a * c * z / (1 - math.exp(-z))


@program(10.0, np.array([120.0, 36.0, 0.3]), 400, wrt=(0, 1), derivative_rtol=1e-5)
def hodgkin_huxley(current, conductance, steps):
    """The membrane of a neuron under a steady current: spikes, and the mean voltage."""
    g_na, g_k, g_l = conductance
    v, m, h, n = -65.0, 0.05, 0.6, 0.32
    dt = 0.02
    spikes, above = 0, False
    mean = 0.0
    for _ in range(steps):
        am, bm = rate(v, 0.1, 40.0, 10.0), 4.0 * math.exp(-(v + 65) / 18)
        ah, bh = 0.07 * math.exp(-(v + 65) / 20), 1 / (1 + math.exp(-(v + 35) / 10))
        an, bn = rate(v, 0.01, 55.0, 10.0), 0.125 * math.exp(-(v + 65) / 80)
        i_ion = g_na * m**3 * h * (v - 50) + g_k * n**4 * (v + 77) + g_l * (v + 54.4)
        v += dt * (current - i_ion)
        m += dt * (am * (1 - m) - bm * m)
        h += dt * (ah * (1 - h) - bh * h)
        n += dt * (an * (1 - n) - bn * n)
        if v > 0 and not above:
            spikes += 1
        above = v > 0
        mean += v / steps
    return spikes, mean


@program(0.1, 0.5, 0.7, 0.8, 12.5, 300, wrt=(0, 1, 2, 3, 4), static="steps")
def fitzhugh_nagumo(v, current, a, b, tau, steps):
    """A simple neuron."""
    w = 0.0
    history = np.empty(steps)
    for t in range(steps):
        dv = v - v**3 / 3 - w + current
        dw = (v + a - b * w) / tau
        v += 0.1 * dv
        w += 0.1 * dw
        history[t] = v
    return history.max(), history[-1]


@program(RNG.integers(0, 4, 9), RNG.integers(0, 4, 11), 1.0, -0.7, -1.1, wrt=(2, 3, 4))
def needleman_wunsch(a, b, match, mismatch, gap):
    """The global alignment of two sequences: its score, and how many letters agree in it."""
    n, m = len(a), len(b)
    score = np.zeros((n + 1, m + 1))
    for i in range(n + 1):
        score[i, 0] = i * gap
    for j in range(m + 1):
        score[0, j] = j * gap
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            diagonal = score[i - 1, j - 1] + (match if a[i - 1] == b[j - 1] else mismatch)
            score[i, j] = max(diagonal, score[i - 1, j] + gap, score[i, j - 1] + gap)
    i, j, same = n, m, 0
    while i > 0 and j > 0:
        s = match if a[i - 1] == b[j - 1] else mismatch
        if score[i, j] == score[i - 1, j - 1] + s:
            same += int(a[i - 1] == b[j - 1])
            i, j = i - 1, j - 1
        elif score[i, j] == score[i - 1, j] + gap:
            i -= 1
        else:
            j -= 1
    return score[n, m], same


@program(RNG.normal(size=(7, 9)), 0.6, 0.4, wrt=(0, 1, 2))
def smith_waterman(similarity, gap, temperature):
    """A smooth local alignment: every maximum is a logarithm of a sum of exponentials."""

    def soft_max(x, y, z, w):
        top = max(x, y, z, w)
        parts = [math.exp((v - top) / temperature) for v in (x, y, z, w)]
        return top + temperature * math.log(sum(parts))

    n, m = similarity.shape
    h = np.zeros((n + 1, m + 1))
    best = -1e30
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            h[i, j] = soft_max(0.0, h[i - 1, j - 1] + similarity[i - 1, j - 1], h[i - 1, j] - gap, h[i, j - 1] - gap)
            best = np.logaddexp(best, h[i, j])
    return best


@program({"dose": np.array([100.0, 50.0, 50.0]), "absorb": 1.2, "clear": 0.3}, np.array([0.0, 8.0, 16.0]), wrt=0)
def pharmacokinetics(p, times):
    """One compartment and several doses: the sum of what each leaves at every hour."""
    hours = np.linspace(0.0, 24.0, 13)
    level = np.zeros(13)
    for dose, start in zip(p["dose"], times):
        for k, t in enumerate(hours):
            if t < start:
                continue
            since = t - start
            fast, slow = math.exp(-p["absorb"] * since), math.exp(-p["clear"] * since)
            level[k] += dose * p["absorb"] / (p["absorb"] - p["clear"]) * (slow - fast)
    return level, level.max()


@program(RNG.uniform(0.5, 1, (12, 12)), np.ones((12, 12)) * 0.1, 0.05, 0.06, 20, wrt=(0, 1, 2, 3))
def gray_scott(u, v, feed, kill, steps):
    """Two substances that react and spread on a torus."""

    def laplacian(z):
        return np.roll(z, 1, 0) + np.roll(z, -1, 0) + np.roll(z, 1, 1) + np.roll(z, -1, 1) - 4 * z

    for _ in range(steps):
        uvv = u * v * v
        u = u + 0.16 * laplacian(u) - uvv + feed * (1 - u)
        v = v + 0.08 * laplacian(v) + uvv - (feed + kill) * v
    return u, v


@program(np.array([0.1, 0.2, 0.4]), RNG.integers(0, 2, (3, 8)), RNG.uniform(0, 1, 8), wrt=(0, 2))
def gene_switches(rates, genes, signal):
    """Cells pass through states by thresholds; a state machine with `elif`."""
    level = np.zeros(8)
    state = np.zeros(8, dtype=np.int64)
    for step in range(10):
        for c in range(8):
            gain = rates[state[c]] * (1.0 + genes[state[c], c])
            level[c] += gain * (signal[c] - level[c] / (2 + step))
            if state[c] == 0 and level[c] > 0.3:
                state[c] = 1
            elif state[c] == 1 and level[c] > 0.6:
                state[c] = 2
            elif state[c] == 2 and level[c] < 0.2:
                state[c] = 0
    return level, state


@program(np.array([3.0, 1.0, 0.5]), 1.1, 12, wrt=(0, 1))
def leslie(population, growth, years):
    """Age classes over years, until the shares settle."""
    births = np.array([0.0, 1.2, 0.9])
    survive = np.array([0.6, 0.5])
    x = population
    for year in range(years):
        new = np.empty(3)
        new[0] = growth * np.sum(births * x)
        new[1:] = survive * x[:-1]
        change = np.abs(new / new.sum() - x / x.sum()).sum()
        x = new
        if change < 1e-3:
            break
    return x, year
