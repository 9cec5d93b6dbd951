/* Programs of programs.py in C. NAME gives the value; NAME_gradient, written by hand, gives the value and the derivative
   by the first argument. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define G 9.81

static void slope(const double z[4], double out[4]) {
    double v = z[2], w = z[3], s = sin(z[0] - z[1]), c = cos(z[0] - z[1]);
    double sa = G * sin(z[0]), sb = G * sin(z[1]), below = 1.0 / (2.0 - c * c);
    out[0] = v;
    out[1] = w;
    out[2] = (-w * w * s - 2.0 * sa - c * (v * v * s - sb)) * below;
    out[3] = (2.0 * v * v * s - 2.0 * sb + c * (w * w * s + 2.0 * sa)) * below;
}

/* Adds to z_bar the transpose of the derivative of `slope` at z, times y. */
static void slope_transposed(const double z[4], const double y[4], double z_bar[4]) {
    double v = z[2], w = z[3], s = sin(z[0] - z[1]), c = cos(z[0] - z[1]);
    double sa = G * sin(z[0]), sb = G * sin(z[1]), ca = G * cos(z[0]), cb = G * cos(z[1]);
    double below = 1.0 / (2.0 - c * c);
    double first = v * v * s - sb, second = w * w * s + 2.0 * sa;
    double dv = (-w * w * s - 2.0 * sa - c * first) * below, dw = (2.0 * v * v * s - 2.0 * sb + c * second) * below;
    double p = y[2] * below, q = y[3] * below;
    double s_bar = -p * (w * w + c * v * v) + q * (2.0 * v * v + c * w * w);
    double c_bar = -p * first + q * second + (y[2] * dv + y[3] * dw) * (2.0 * c * below);
    double d_bar = s_bar * c - c_bar * s;
    double sa_bar = 2.0 * (q * c - p), sb_bar = p * c - 2.0 * q;
    z_bar[0] += d_bar + sa_bar * ca;
    z_bar[1] += sb_bar * cb - d_bar;
    z_bar[2] += y[0] + 2.0 * v * s * (2.0 * q - p * c);
    z_bar[3] += y[1] + 2.0 * w * s * (q * c - p);
}

static void stages(const double z[4], double h, double at[3][4], double next[4]) {
    double k[4][4];
    slope(z, k[0]);
    for (int s = 0; s < 3; s++) {
        for (int i = 0; i < 4; i++) at[s][i] = z[i] + (s == 2 ? h : h / 2) * k[s][i];
        slope(at[s], k[s + 1]);
    }
    for (int i = 0; i < 4; i++) next[i] = z[i] + h / 6 * (k[0][i] + 2 * k[1][i] + 2 * k[2][i] + k[3][i]);
}

double double_pendulum(const double *start, long steps) {
    double z[4], at[3][4];
    memcpy(z, start, sizeof z);
    for (long t = 0; t < steps; t++) stages(z, 0.01, at, z);
    return z[0] * z[0] + z[1] * z[1] + z[2] * z[2] + z[3] * z[3];
}

double double_pendulum_gradient(const double *start, long steps, double *bar) {
    double h = 0.01, (*tape)[4][4] = malloc(steps * sizeof *tape), z[4], total = 0.0;
    memcpy(z, start, sizeof z);
    for (long t = 0; t < steps; t++) {
        memcpy(tape[t][0], z, sizeof z);
        stages(z, h, tape[t] + 1, z);
    }
    for (int i = 0; i < 4; i++) total += z[i] * z[i], bar[i] = 2.0 * z[i];
    for (long t = steps - 1; t >= 0; t--) {
        double k_bar[4], sum[4];
        for (int i = 0; i < 4; i++) sum[i] = bar[i], k_bar[i] = h / 6 * bar[i];
        for (int s = 3; s >= 0; s--) {
            double z_bar[4] = {0, 0, 0, 0};
            slope_transposed(tape[t][s], k_bar, z_bar);
            for (int i = 0; i < 4; i++) {
                sum[i] += z_bar[i];
                k_bar[i] = h / (s == 1 ? 6 : 3) * bar[i] + (s == 3 ? h : h / 2) * z_bar[i];
            }
        }
        memcpy(bar, sum, sizeof sum);
    }
    free(tape);
    return total;
}

static double soft_dtw_table(const double *cost, long n, long m, double *r) {
    for (long k = 0; k < (n + 1) * (m + 1); k++) r[k] = 1e10;
    r[0] = 0.0;
    for (long i = 1; i <= n; i++)
        for (long j = 1; j <= m; j++) {
            double *at = r + i * (m + 1) + j, a = at[-m - 2], b = at[-m - 1], c = at[-1];
            double least = fmin(a, fmin(b, c));
            *at = cost[(i - 1) * m + j - 1] + least - log(exp(least - a) + exp(least - b) + exp(least - c));
        }
    return r[n * (m + 1) + m];
}

double soft_dtw(const double *cost, long n, long m) {
    double *r = malloc((n + 1) * (m + 1) * sizeof *r), total = soft_dtw_table(cost, n, m, r);
    free(r);
    return total;
}

/* The weight of a predecessor p of a cell is exp(soft - p), where soft is the value of the cell less its cost. */
double soft_dtw_gradient(const double *cost, long n, long m, double *bar) {
    double *r = malloc((n + 1) * (m + 1) * sizeof *r), total = soft_dtw_table(cost, n, m, r);
    double *e = calloc((n + 1) * (m + 1), sizeof *e);
    e[n * (m + 1) + m] = 1.0;
    for (long i = n; i >= 1; i--)
        for (long j = m; j >= 1; j--) {
            double *at = r + i * (m + 1) + j, *weight = e + i * (m + 1) + j;
            double soft = *at - cost[(i - 1) * m + j - 1], w = *weight;
            bar[(i - 1) * m + j - 1] = w;
            weight[-m - 2] += w * exp(soft - at[-m - 2]);
            weight[-m - 1] += w * exp(soft - at[-m - 1]);
            weight[-1] += w * exp(soft - at[-1]);
        }
    free(r);
    free(e);
    return total;
}

static double sweep(const double *f, long n, long m, long sweeps, double *u) {
    double total = 0.0;
    for (long t = 0; t < sweeps; t++)
        for (long i = 1; i < n - 1; i++)
            for (long j = 1; j < m - 1; j++) {
                double *at = u + i * m + j;
                *at = 0.25 * (at[-m] + at[m] + at[-1] + at[1] - f[i * m + j]);
            }
    for (long k = 0; k < n * m; k++) total += u[k] * u[k];
    return total;
}

double gauss_seidel(const double *f, long n, long m, long sweeps) {
    double *u = calloc(n * m, sizeof *u), total = sweep(f, n, m, sweeps, u);
    free(u);
    return total;
}

double gauss_seidel_gradient(const double *f, long n, long m, long sweeps, double *bar) {
    double *u = calloc(n * m, sizeof *u), total = sweep(f, n, m, sweeps, u);
    memset(bar, 0, n * m * sizeof *bar);
    for (long k = 0; k < n * m; k++) u[k] *= 2.0;
    for (long t = 0; t < sweeps; t++)
        for (long i = n - 2; i >= 1; i--)
            for (long j = m - 2; j >= 1; j--) {
                double *at = u + i * m + j, w = 0.25 * *at;
                *at = 0.0;
                at[-m] += w, at[m] += w, at[-1] += w, at[1] += w;
                bar[i * m + j] -= w;
            }
    free(u);
    return total;
}

static double thomas(const double *b, const double *a, const double *c, const double *d, long n, double *p, double *m,
                     double *x) {
    double total;
    m[0] = 1.0 / b[0], p[0] = c[0] * m[0], x[0] = d[0] * m[0];
    for (long i = 1; i < n; i++) {
        m[i] = 1.0 / (b[i] - a[i] * p[i - 1]);
        p[i] = c[i] * m[i];
        x[i] = (d[i] - a[i] * x[i - 1]) * m[i];
    }
    total = x[n - 1] * x[n - 1];
    for (long i = n - 2; i >= 0; i--) {
        x[i] -= p[i] * x[i + 1];
        total += x[i] * x[i];
    }
    return total;
}

double tridiagonal(const double *b, const double *a, const double *c, const double *d, long n) {
    double *work = malloc(3 * n * sizeof *work), total = thomas(b, a, c, d, n, work, work + n, work + 2 * n);
    free(work);
    return total;
}

/* With A x = d and l the solution of the transposed system for 2 x, the derivative by the diagonal is -l x. The factors
   serve again: A = L U, the diagonal of L is 1 / m and that of U is 1, p stands above it. */
double tridiagonal_gradient(const double *b, const double *a, const double *c, const double *d, long n, double *bar) {
    double *work = malloc(3 * n * sizeof *work), *p = work, *m = work + n, *x = work + 2 * n;
    double total = thomas(b, a, c, d, n, p, m, x), y = 2.0 * x[0];
    bar[0] = y;
    for (long i = 1; i < n; i++) bar[i] = y = 2.0 * x[i] - p[i - 1] * y;
    double l = bar[n - 1] * m[n - 1];
    bar[n - 1] = -l * x[n - 1];
    for (long i = n - 2; i >= 0; i--) {
        l = (bar[i] - a[i + 1] * l) * m[i];
        bar[i] = -l * x[i];
    }
    free(work);
    return total;
}

double particles(const double *x, long n, double cut) {
    double total = 0.0;
    for (long i = 0; i < n; i++)
        for (long j = 0; j < i; j++) {
            double d = 0.0;
            for (int k = 0; k < 3; k++) d += (x[3 * i + k] - x[3 * j + k]) * (x[3 * i + k] - x[3 * j + k]);
            if (d < cut * cut) {
                double s = 1.0 / (d * d * d);
                total += 4.0 * (s * s - s);
            }
        }
    return total;
}

double particles_gradient(const double *x, long n, double cut, double *bar) {
    double total = 0.0;
    memset(bar, 0, 3 * n * sizeof *bar);
    for (long i = 0; i < n; i++)
        for (long j = 0; j < i; j++) {
            double d = 0.0, r[3];
            for (int k = 0; k < 3; k++) r[k] = x[3 * i + k] - x[3 * j + k], d += r[k] * r[k];
            if (d < cut * cut) {
                double e = 1.0 / d, s = e * e * e, w = -24.0 * e * (2.0 * s * s - s);
                total += 4.0 * (s * s - s);
                for (int k = 0; k < 3; k++) bar[3 * i + k] += w * r[k], bar[3 * j + k] -= w * r[k];
            }
        }
    return total;
}

double sparse_product(const double *values, const double *x, const long *columns, const long *starts, long n) {
    double total = 0.0;
    for (long i = 0; i < n; i++) {
        double s = 0.0;
        for (long k = starts[i]; k < starts[i + 1]; k++) s += values[k] * x[columns[k]];
        total += s * s;
    }
    return total;
}

double sparse_product_gradient(const double *values, const double *x, const long *columns, const long *starts, long n,
                               double *bar) {
    double total = 0.0;
    for (long i = 0; i < n; i++) {
        double s = 0.0;
        for (long k = starts[i]; k < starts[i + 1]; k++) s += values[k] * x[columns[k]];
        total += s * s;
        for (long k = starts[i]; k < starts[i + 1]; k++) bar[k] = 2.0 * s * x[columns[k]];
    }
    return total;
}

double mandelbrot(const double *centre, double width, long points, long limit) {
    double total = 0.0;
    for (long i = 0; i < points; i++)
        for (long j = 0; j < points; j++) {
            double re = centre[0] + width * ((double)i / points - 0.5), im = centre[1] + width * ((double)j / points - 0.5);
            double x = re, y = im;
            long n = 0;
            for (; n < limit && x * x + y * y < 4.0; n++) {
                double t = x * x - y * y + re;
                y = 2.0 * x * y + im;
                x = t;
            }
            if (n < limit) total += (x * x + y * y - 4.0) * (x * x + y * y - 4.0);
        }
    return total;
}

/* Complex arithmetic: the derivative w of the point z by the constant follows w' = 2 z w + 1, forwards. */
double mandelbrot_gradient(const double *centre, double width, long points, long limit, double *bar) {
    double total = 0.0;
    bar[0] = bar[1] = 0.0;
    for (long i = 0; i < points; i++)
        for (long j = 0; j < points; j++) {
            double re = centre[0] + width * ((double)i / points - 0.5), im = centre[1] + width * ((double)j / points - 0.5);
            double x = re, y = im, u = 1.0, v = 0.0;
            long n = 0;
            for (; n < limit && x * x + y * y < 4.0; n++) {
                double p = 2.0 * (x * u - y * v) + 1.0, t = x * x - y * y + re;
                v = 2.0 * (x * v + y * u);
                u = p;
                y = 2.0 * x * y + im;
                x = t;
            }
            if (n < limit) {
                double e = x * x + y * y - 4.0;
                total += e * e;
                bar[0] += 4.0 * e * (x * u + y * v);
                bar[1] += 4.0 * e * (y * u - x * v);
            }
        }
    return total;
}
