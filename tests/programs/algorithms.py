"""Sorting, searching, graphs, tables, sparse matrices, transforms."""

import math

import numpy as np

from programs.registry import program

RNG = np.random.default_rng(6)
X = RNG.normal(size=9)


@program(RNG.normal(size=8), wrt=0, rtol=0.0)
def bitonic_sort(x):
    """A sorting network over a power of two."""
    x = x.copy()
    n = len(x)
    k = 2
    while k <= n:
        j = k // 2
        while j > 0:
            for i in range(n):
                other = i ^ j
                if other > i and (x[i] > x[other]) == (i & k == 0):
                    x[i], x[other] = x[other], x[i]
            j //= 2
        k *= 2
    return x


@program(X, wrt=0, rtol=0.0)
def insertion_sort(x):
    y = x.copy()
    for i in range(1, len(y)):
        v = y[i]
        j = i - 1
        while j >= 0 and y[j] > v:
            y[j + 1] = y[j]
            j -= 1
        y[j + 1] = v
    return y


@program(X, wrt=0, updates=0, rtol=0.0)
def quicksort(x):
    """In place, with a stack of ranges instead of recursion."""
    stack = np.zeros((len(x) + 1, 2), dtype=np.int64)
    stack[0] = [0, len(x) - 1]
    top = 1
    while top > 0:
        top -= 1
        lo, hi = stack[top]
        if lo >= hi:
            continue
        pivot = x[(lo + hi) // 2]
        i, j = lo, hi
        while i <= j:
            while x[i] < pivot:
                i += 1
            while x[j] > pivot:
                j -= 1
            if i <= j:
                x[i], x[j] = x[j], x[i]
                i += 1
                j -= 1
        stack[top, 0], stack[top, 1] = lo, j
        stack[top + 1, 0], stack[top + 1, 1] = i, hi
        top += 2


@program(X, wrt=0, updates=0, rtol=0.0)
def heapsort(x):
    def sift(start, end):
        root = start
        while (child := 2 * root + 1) < end:
            if child + 1 < end and x[child] < x[child + 1]:
                child += 1
            if x[root] >= x[child]:
                return
            x[root], x[child] = x[child], x[root]
            root = child

    n = len(x)
    for start in range(n // 2 - 1, -1, -1):
        sift(start, n)
    for end in range(n - 1, 0, -1):
        x[0], x[end] = x[end], x[0]
        sift(0, end)
    return x


@program(X, wrt=0, rtol=0.0)
def merge_sort(x):
    """From the bottom up, between two buffers that trade places."""
    a, b = x.copy(), np.empty_like(x)
    n = len(x)
    width = 1
    while width < n:
        for left in range(0, n, 2 * width):
            mid, right = min(left + width, n), min(left + 2 * width, n)
            i, j = left, mid
            for k in range(left, right):
                if i < mid and (j >= right or a[i] <= a[j]):
                    b[k] = a[i]
                    i += 1
                else:
                    b[k] = a[j]
                    j += 1
        a, b = b, a
        width *= 2
    return a


@program(
    np.array([0, 2, 3, 5, 6]), np.array([0, 2, 1, 0, 3, 2]), RNG.normal(size=6), RNG.normal(size=4), wrt=(2, 3), order=2
)
def csr_product(ptr, col, data, x):
    """A sparse matrix, by compressed rows, times a vector."""
    y = np.zeros(len(ptr) - 1)
    for i in range(len(y)):
        total = 0.0
        for k in range(ptr[i], ptr[i + 1]):
            total += data[k] * x[col[k]]
        y[i] = total
    return y


@program(
    np.array([0, 1, 3, 0]), np.array([1, 2, 0, 1]), RNG.normal(size=4), RNG.normal(size=5), 4, wrt=(2, 3), static="n"
)
def coo_transposed(rows, cols, data, x, n):
    """Scatters a product by np.add.at."""
    y = np.zeros(n)
    np.add.at(y, cols, data * x[rows])
    return y


@program(np.array([[5.0, 7.0], [1.0, 2.5], [2.0, 4.0], [6.5, 9.0], [0.5, 0.8]]), wrt=0)
def union_of_intervals(spans):
    """The length that intervals cover together: sorts their starts, then walks along."""
    order = np.zeros(len(spans), dtype=np.int64)
    for i in range(len(spans)):
        rank = 0
        for j in range(len(spans)):
            if spans[j, 0] < spans[i, 0] or (spans[j, 0] == spans[i, 0] and j < i):
                rank += 1
        order[rank] = i
    total = 0.0
    start, end = spans[order[0]]
    for k in order[1:]:
        a, b = spans[k]
        if a > end:
            total += end - start
            start, end = a, b
        elif b > end:
            end = b
    return total + end - start


@program(np.sort(X), RNG.normal(size=6), wrt=(0, 1))
def interpolate(xs, points):
    """Binary search and linear interpolation of the squares of xs."""
    out = np.zeros(len(points))
    for p in range(len(points)):
        lo, hi = 0, len(xs) - 1
        while hi - lo > 1:
            mid = (lo + hi) // 2
            if xs[mid] <= points[p]:
                lo = mid
            else:
                hi = mid
        w = (points[p] - xs[lo]) / (xs[hi] - xs[lo])
        out[p] = (1 - w) * xs[lo] ** 2 + w * xs[hi] ** 2
    return out


@program(60, static="n")
def sieve(n):
    """The primes up to n: their number and their sum."""
    prime = np.ones(n + 1, dtype=bool)
    prime[:2] = False
    i = 2
    while i * i <= n:
        if prime[i]:
            prime[i * i :: i] = False
        i += 1
    total = 0
    for k in range(n + 1):
        if prime[k]:
            total += k
    return prime.sum(), total


@program(X, wrt=0, updates=0)
def prefix_sums(x):
    """Blelloch's scan in place: up the tree, and down again."""
    n = len(x)
    for i in range(1, n):
        x[i] += x[i - 1]
    best = x[0]
    lowest = min(0.0, x[0])
    for v in x[1:]:
        best = max(best, v - lowest)
        lowest = min(lowest, v)
    return best


@program(RNG.normal(size=16), RNG.normal(size=16), wrt=(0, 1))
def fft(re, im):
    """Cooley and Tukey's algorithm in place on pairs of real numbers."""
    re, im = re.copy(), im.copy()
    n = len(re)
    j = 0
    for i in range(1, n):
        bit = n >> 1
        while j & bit:
            j ^= bit
            bit >>= 1
        j |= bit
        if i < j:
            re[i], re[j] = re[j], re[i]
            im[i], im[j] = im[j], im[i]
    length = 2
    while length <= n:
        angle = -2 * math.pi / length
        for start in range(0, n, length):
            for k in range(length // 2):
                c, s = math.cos(angle * k), math.sin(angle * k)
                a, b = start + k, start + k + length // 2
                tr = re[b] * c - im[b] * s
                ti = re[b] * s + im[b] * c
                re[b], im[b] = re[a] - tr, im[a] - ti
                re[a], im[a] = re[a] + tr, im[a] + ti
        length *= 2
    return re, im


@program(RNG.normal(size=(10, 2)), wrt=0)
def convex_hull(points):
    """Jarvis' march: the corners in order, and the area."""
    n = len(points)
    corner = np.full(n, -1)
    start = np.argmin(points[:, 0])
    now = start
    count = 0
    area = 0.0
    while True:
        corner[count] = now
        count += 1
        following = (now + 1) % n
        for k in range(n):
            cross = (points[following, 0] - points[now, 0]) * (points[k, 1] - points[now, 1])
            cross -= (points[following, 1] - points[now, 1]) * (points[k, 0] - points[now, 0])
            if cross < 0:
                following = k
        area += 0.5 * (points[now, 0] * points[following, 1] - points[following, 0] * points[now, 1])
        now = following
        if now == start or count == n:
            break
    return corner, area


@program(RNG.uniform(1, 9, (6, 6)), wrt=0)
def floyd_warshall(weights):
    """Shortest paths between all pairs, and how far one can get."""
    d = weights.copy()
    n = len(d)
    for k in range(n):
        for i in range(n):
            for j in range(n):
                if d[i, k] + d[k, j] < d[i, j]:
                    d[i, j] = d[i, k] + d[k, j]
    return d, d.max()


@program(RNG.uniform(1, 9, (6, 6)), 0, wrt=0)
def dijkstra(weights, source):
    """Shortest paths from one node."""
    n = len(weights)
    distance = np.full(n, np.inf)
    done = np.zeros(n, dtype=bool)
    distance[source] = 0.0
    for _ in range(n):
        u, best = -1, np.inf
        for v in range(n):
            if not done[v] and distance[v] < best:
                u, best = v, distance[v]
        if u < 0:
            break
        done[u] = True
        for v in range(n):
            if not done[v]:
                distance[v] = min(distance[v], distance[u] + weights[u, v])
    return distance


@program(RNG.integers(0, 2, (6, 7)), 3)
def game_of_life(grid, rounds):
    n, m = grid.shape
    for _ in range(rounds):
        new = np.zeros_like(grid)
        for i in range(n):
            for j in range(m):
                alive = -grid[i, j]
                for a in range(i - 1, i + 2):
                    for b in range(j - 1, j + 2):
                        alive += grid[a % n, b % m]
                new[i, j] = 1 if alive == 3 or (alive == 2 and grid[i, j]) else 0
        grid = new
    return grid


@program(RNG.integers(0, 3, 10), RNG.integers(0, 3, 12))
def longest_common_subsequence(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int64)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if x == y:
                table[i + 1, j + 1] = table[i, j] + 1
            else:
                table[i + 1, j + 1] = max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


@program(np.array([2, 3, 4, 5]), np.array([3.0, 4.0, 5.0, 6.5]), 8, wrt=1, static="capacity")
def knapsack(size, worth, capacity):
    """The best worth, from a row that is updated from its end."""
    best = np.zeros(capacity + 1)
    for s, w in zip(size, worth):
        for c in range(capacity, s - 1, -1):
            best[c] = max(best[c], best[c - s] + w)
    return best[capacity]


@program(84, 36)
def gcd_and_bits(a, b):
    """Euclid's algorithm, and the ones of the result in binary."""
    while b:
        a, b = b, a % b
    ones, rest = 0, a
    while rest:
        ones += rest & 1
        rest >>= 1
    return a, ones, divmod(a, 5), pow(a, 2), -a // 5, -a % 5


@program(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3]), 10, static="bins")
def histogram(values, bins):
    counts = np.zeros(bins, dtype=np.int64)
    for v in values:
        counts[v] += 1
    mode = 0
    for k in range(bins):
        if counts[k] > counts[mode]:
            mode = k
    return counts, mode


@program(np.array([4, 0, 2, 2, 1, 7, 7, 6]), static=())
def union_find(parent_of):
    """Components of a graph, with path halving."""
    n = len(parent_of)
    parent = np.arange(n)

    def find(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    groups = n
    for i in range(n):
        a, b = find(i), find(parent_of[i])
        if a != b:
            parent[a] = b
            groups -= 1
    return groups


@program(RNG.normal(size=(5, 4)), RNG.normal(size=(4, 6)), wrt=(0, 1))
def blocked_product(a, b):
    """A matrix product by blocks of two."""
    n, k = a.shape
    m = b.shape[1]
    c = np.zeros((n, m))
    for i0 in range(0, n, 2):
        for j0 in range(0, m, 2):
            for k0 in range(0, k, 2):
                for i in range(i0, min(i0 + 2, n)):
                    for j in range(j0, min(j0 + 2, m)):
                        for q in range(k0, min(k0 + 2, k)):
                            c[i, j] += a[i, q] * b[q, j]
    return c


@program(RNG.normal(size=(6, 6)), RNG.normal(size=(3, 3)), wrt=(0, 1))
def convolution(image, kernel):
    """A picture and a small kernel, mirrored at the border."""
    n, m = image.shape
    out = np.zeros_like(image)
    for i in range(n):
        for j in range(m):
            total = 0.0
            for a in range(-1, 2):
                for b in range(-1, 2):
                    r, c = abs(i + a), abs(j + b)
                    if r >= n:
                        r = 2 * n - r - 2
                    if c >= m:
                        c = 2 * m - c - 2
                    total += image[r, c] * kernel[a + 1, b + 1]
            out[i, j] = total
    return out


@program(RNG.normal(size=7), wrt=0)
def longest_increasing(x):
    """The increasing subsequence of the greatest sum, found from a table, followed back."""
    n = len(x)
    best = x.copy()
    before = np.full(n, -1)
    for i in range(n):
        for j in range(i):
            if x[j] < x[i] and best[j] + x[i] > best[i]:
                best[i] = best[j] + x[i]
                before[i] = j
    k = int(np.argmax(best))
    chosen = np.zeros(n, dtype=bool)
    while k >= 0:
        chosen[k] = True
        k = before[k]
    return best.max(), chosen


@program(np.array([1, 2, 3, 4, 5]), np.array([6.0, 1.0, 3.0, 2.0, 5.0]), 17, wrt=1)
def linear_congruential(seeds, x, rounds):
    """Shuffles by a generator of random numbers in integers that wrap around."""
    state = np.uint64(seeds[0])
    y = x.copy()
    for _ in range(rounds):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        i = int((state >> np.uint64(33)) % np.uint64(len(y)))
        y[0], y[i] = y[i], y[0]
    return y
