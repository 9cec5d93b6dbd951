"""Mechanics, waves, flows, particles, light."""

import math

import numpy as np

from programs.registry import program

RNG = np.random.default_rng(1)


@program(np.array([1.0, 0.2]), 3.0, 1e-6, wrt=(0, 1), derivative_rtol=1e-5)
def adaptive_oscillator(y, t_end, tolerance):
    """Van der Pol's oscillator by Heun's method with a step that adapts to the error."""

    def slope(y):
        return np.array([y[1], (1.0 - y[0] ** 2) * y[1] - y[0]])

    t, h = 0.0, 0.1
    while t < t_end:
        if t + h > t_end:
            h = t_end - t
        k1 = slope(y)
        k2 = slope(y + h * k1)
        error = np.max(np.abs(0.5 * h * (k2 - k1)))
        if error <= tolerance:
            y = y + 0.5 * h * (k1 + k2)
            t += h
        if t < t_end:
            h *= min(5.0, max(0.2, 0.9 * (tolerance / (error + 1e-300)) ** 0.5))
    return y


@program(np.array([0.3, -0.2, 0.1]), 0.4, wrt=(0, 1))
def cash_karp_step(y, h):
    """One step of an embedded Runge-Kutta method from its table, on the equations of Lorenz."""
    a = [
        [],
        [1 / 5],
        [3 / 40, 9 / 40],
        [3 / 10, -9 / 10, 6 / 5],
        [-11 / 54, 5 / 2, -70 / 27, 35 / 27],
        [1631 / 55296, 175 / 512, 575 / 13824, 44275 / 110592, 253 / 4096],
    ]
    fifth = [37 / 378, 0, 250 / 621, 125 / 594, 0, 512 / 1771]
    fourth = [2825 / 27648, 0, 18575 / 48384, 13525 / 55296, 277 / 14336, 1 / 4]
    k = np.zeros((6, 3))
    for i, row in enumerate(a):
        z = y.copy()
        for j, c in enumerate(row):
            z += h * c * k[j]
        k[i] = [10.0 * (z[1] - z[0]), z[0] * (28.0 - z[2]) - z[1], z[0] * z[1] - 8.0 / 3.0 * z[2]]
    new = y + h * sum(b * k[i] for i, b in enumerate(fifth))
    error = h * np.abs(sum((b - c) * k[i] for i, (b, c) in enumerate(zip(fifth, fourth)))).max()
    return new, error


@program(RNG.normal(size=(8, 8)), RNG.normal(size=(8, 8)), 1.4, 12, wrt=(0, 1, 2), updates=0)
def successive_over_relaxation(u, f, omega, sweeps):
    """Poisson's equation on a grid, in place."""
    n, m = u.shape
    for _ in range(sweeps):
        for i in range(1, n - 1):
            for j in range(1, m - 1):
                new = 0.25 * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1] - f[i, j])
                u[i, j] += omega * (new - u[i, j])


@program(np.diag([4.0] * 6) + RNG.uniform(-0.5, 0.5, (6, 6)), RNG.normal(size=6), 1e-10, wrt=(0, 1))
def gauss_seidel(a, b, tolerance):
    """Solves a x = b by iteration until nothing moves any more."""
    x = np.zeros_like(b)
    for sweep in range(100):
        moved = 0.0
        for i in range(len(b)):
            rest = 0.0
            for j in range(len(b)):
                if j != i:
                    rest += a[i, j] * x[j]
            new = (b[i] - rest) / a[i, i]
            moved = max(moved, abs(new - x[i]))
            x[i] = new
        if moved < tolerance:
            break
    return x, sweep


@program(RNG.uniform(0, 2.5, (9, 2)), 1.2, wrt=(0, 1), order=2)
def soft_particles(x, reach):
    """The energy and the forces of particles that repel each other when they are near."""
    energy = 0.0
    force = np.zeros_like(x)
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            d = x[i] - x[j]
            r = np.sqrt(d @ d)
            if r >= reach:
                continue
            overlap = 1.0 - r / reach
            energy += 0.5 * overlap**2
            push = overlap / reach * d / r
            force[i] += push
            force[j] -= push
    return energy, force


@program(RNG.uniform(0, 3, (5, 3)), RNG.normal(size=(5, 3)) * 0.1, 3.0, 0.004, 6, wrt=(0, 1), derivative_rtol=1e-5)
def lennard_jones(x, v, box, dt, steps):
    """Molecular dynamics in a periodic box by velocity Verlet."""
    n = x.shape[0]

    def forces(x):
        f = np.zeros((n, 3))
        potential = 0.0
        for i in range(n - 1):
            for j in range(i + 1, n):
                d = x[i] - x[j]
                d -= box * np.round(d / box)
                r2 = np.sum(d * d) + 0.5
                if r2 < 0.25 * box * box:
                    s6 = 1.0 / r2**3
                    potential += 4.0 * (s6 * s6 - s6)
                    f_ij = 24.0 * (2.0 * s6 * s6 - s6) / r2 * d
                    f[i] += f_ij
                    f[j] -= f_ij
        return f, potential

    x, v = x.copy(), v.copy()
    f, potential = forces(x)
    for _ in range(steps):
        v += 0.5 * dt * f
        x = (x + dt * v) % box
        f, potential = forces(x)
        v += 0.5 * dt * f
    return x, v, potential + 0.5 * np.sum(v**2)


@program(RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)) * 0.3, RNG.uniform(0.5, 1.5, 4), 0.01, 20, wrt=(0, 1, 2))
def leapfrog(pos, vel, mass, dt, steps):
    """Bodies that attract each other, all pairs at once."""

    def accelerations(pos):
        d = pos[np.newaxis, :, :] - pos[:, np.newaxis, :]
        inv = (np.sum(d**2, axis=-1) + 0.05) ** -1.5
        return np.einsum("ijk,ij,j->ik", d, inv, mass)

    acc = accelerations(pos)
    for _ in range(steps):
        vel = vel + 0.5 * dt * acc
        pos = pos + dt * vel
        acc = accelerations(pos)
        vel = vel + 0.5 * dt * acc
    return pos, vel


@program(np.array([1.2, -0.4, 0.0, 0.3]), 0.7, 60, 0.02, wrt=(0, 1))
def double_pendulum(state, ratio, steps, dt):
    """The path of a double pendulum by the classical Runge-Kutta method, and its highest point."""

    def rates(s):
        a, b, p, q = s
        c, d = math.cos(a - b), math.sin(a - b)
        det = 1.0 + ratio - c * c
        dp = (-q * q * d - (1.0 + ratio) * math.sin(a) - c * (p * p * d - math.sin(b))) / det
        dq = ((1.0 + ratio) * (p * p * d - math.sin(b) + c * math.sin(a)) + q * q * d * c) / det
        return np.array([p, q, dp, dq])

    highest = -math.inf
    for _ in range(steps):
        k1 = rates(state)
        k2 = rates(state + dt / 2 * k1)
        k3 = rates(state + dt / 2 * k2)
        k4 = rates(state + dt * k3)
        state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        highest = max(highest, -math.cos(state[0]) - math.cos(state[1]))
    return state, highest


@program(RNG.normal(size=40), 0.9, 25, wrt=(0, 1), order=2)
def wave_equation(u, courant, steps):
    """A string with fixed ends; three levels of time that trade places."""
    old, now = u.copy(), u.copy()
    new = np.zeros_like(u)
    for _ in range(steps):
        new[1:-1] = 2 * now[1:-1] - old[1:-1] + courant**2 * (now[2:] - 2 * now[1:-1] + now[:-2])
        old, now, new = now, new, old
    return now


@program(RNG.uniform(0, 1, (7, 9)), RNG.uniform(0.05, 0.2, (7, 9)), 15, wrt=(0, 1), updates=0)
def heat_equation(u, k, steps):
    """Heat on a plate of varying conductivity, with a buffer that is swapped."""
    v = np.empty_like(u)
    for _ in range(steps):
        v[:] = u
        v[1:-1, 1:-1] += k[1:-1, 1:-1] * (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1])
        u, v = v, u
    return u


@program(1.0 + 0.1 * RNG.uniform(size=30), np.zeros(30), 0.02, 40, wrt=(0, 1), derivative_rtol=1e-5)
def shallow_water(h, hu, dt, steps):
    """Lax and Friedrichs' scheme with periodic ends."""
    g = 9.81
    dx = 1.0
    for _ in range(steps):
        flux_h = hu
        flux_u = hu**2 / h + 0.5 * g * h**2
        left_h, right_h = np.roll(h, 1), np.roll(h, -1)
        left_u, right_u = np.roll(hu, 1), np.roll(hu, -1)
        new_h = 0.5 * (left_h + right_h) - dt / (2 * dx) * (np.roll(flux_h, -1) - np.roll(flux_h, 1))
        new_u = 0.5 * (left_u + right_u) - dt / (2 * dx) * (np.roll(flux_u, -1) - np.roll(flux_u, 1))
        h, hu = new_h, new_u
    return h, hu


@program(np.array([0.0, 0.0, -3.0]), np.array([0.05, 0.1, 1.0]), np.array([0.1, 0.2, 0.3, 1.0]), wrt=(0, 1, 2))
def ray_marching(origin, direction, sphere):
    """Sphere tracing: goes on by the distance to a ball with a bump until it is hit; returns shade and depth."""

    def distance(p):
        q = p - sphere[:3]
        return np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2) - sphere[3] + 0.05 * np.sin(5 * p[0])

    ray = direction / np.linalg.norm(direction)
    t = 0.0
    for _ in range(100):
        p = origin + t * ray
        d = distance(p)
        if d < 1e-9:
            normal = (p - sphere[:3]) / np.linalg.norm(p - sphere[:3])
            return max(0.0, -(normal @ ray)), t
        if t > 20.0:
            return 0.0, t
        t += d
    return -1.0, t


@program(RNG.uniform(-1, 1, (6, 4)), np.array([[0.0, 0.0, 1.0], [0.4, 0.3, 0.5]]), wrt=(0, 1))
def ray_spheres(rays, spheres):
    """For each ray the depth at which it first meets a sphere, if it meets any."""
    depth = np.full(len(rays), 10.0)
    hits = 0
    for i, (ox, oy, dx, dy) in enumerate(rays):
        size = math.sqrt(dx * dx + dy * dy + 1.0)
        for cx, cy, radius in spheres:
            b = ((ox - cx) * dx + (oy - cy) * dy - 3.0) / size
            c = (ox - cx) ** 2 + (oy - cy) ** 2 + 9.0 - radius**2
            if (disc := b * b - c) < 0.0:
                continue
            near = -b - math.sqrt(disc)
            if 0.0 < near < depth[i]:
                depth[i] = near
                hits += 1
    return depth, hits


@program(RNG.uniform(0, 4, 12), RNG.choice([-1.0, 1.0], 12), 2.0, wrt=(0, 2))
def cell_list(x, charge, screening):
    """Screened charges on a line, sorted into cells so that only near ones are summed."""
    cells = 4
    count = np.zeros(cells, dtype=np.int64)
    member = np.zeros((cells, len(x)), dtype=np.int64)
    for i in range(len(x)):
        c = min(int(x[i]), cells - 1)
        member[c, count[c]] = i
        count[c] += 1
    energy = 0.0
    for c in range(cells):
        for other in range(max(c - 1, 0), min(c + 2, cells)):
            for a in range(count[c]):
                for b in range(count[other]):
                    i, j = member[c, a], member[other, b]
                    if i < j and abs(x[i] - x[j]) < 1.0:
                        r = abs(x[i] - x[j]) + 0.1
                        energy += charge[i] * charge[j] * math.exp(-screening * r) / r
    return energy


@program(np.array([0.0, 1.0, 0.5]), np.array([1.0, 2.0, 0.0]), 0.6, 30, wrt=(0, 1, 2))
def bouncing_ball(start, speed, bounce, steps):
    """A ball in a box loses speed whenever it meets a wall; the walls are met within a step."""
    x, v = start.copy(), speed.copy()
    bounces = 0
    for _ in range(steps):
        x += 0.1 * v
        for k in range(3):
            if x[k] < 0.0:
                x[k] = -x[k] * bounce
                v[k] = -v[k] * bounce
                bounces += 1
            elif x[k] > 2.0:
                x[k] = 2.0 - (x[k] - 2.0) * bounce
                v[k] *= -bounce
                bounces += 1
    return x, v, bounces


@program(RNG.integers(0, 2, (6, 6)) * 2 - 1, RNG.uniform(size=(4, 6, 6)), 0.4)
def ising(spin, noise, beta):
    """Metropolis sweeps over a magnet with given random numbers."""
    spin = spin.copy()
    n = spin.shape[0]
    flips = 0
    for sweep in noise:
        for i in range(n):
            for j in range(n):
                around = spin[i - 1, j] + spin[(i + 1) % n, j] + spin[i, j - 1] + spin[i, (j + 1) % n]
                change = 2 * spin[i, j] * around
                if change <= 0 or sweep[i, j] < np.exp(-beta * change):
                    spin[i, j] = -spin[i, j]
                    flips += 1
    return spin, flips


@program(RNG.uniform(0.5, 2, (5, 6)), 2, wrt=0)
def eikonal(speed, rounds):
    """Travel times from a corner by fast sweeping."""
    n, m = speed.shape
    t = np.full((n, m), 1e6)
    t[0, 0] = 0.0
    for sweep in range(rounds):
        for row in range(n):
            i = row if sweep % 2 == 0 else n - 1 - row
            for j in range(m):
                if i == 0 and j == 0:
                    continue
                a = min(t[i - 1, j] if i > 0 else 1e6, t[i + 1, j] if i < n - 1 else 1e6)
                b = min(t[i, j - 1] if j > 0 else 1e6, t[i, j + 1] if j < m - 1 else 1e6)
                h = 1.0 / speed[i, j]
                if abs(a - b) >= h:
                    new = min(a, b) + h
                else:
                    new = (a + b + math.sqrt(2 * h * h - (a - b) ** 2)) / 2
                t[i, j] = min(t[i, j], new)
    return t
