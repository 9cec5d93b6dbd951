"""The files that the tests of the command line work on."""

PROGRAM = """
import dflow
import numpy as np

VALUE = 3

def loss(x, k):
    total = 0.0
    for i in range(len(x)):
        total += (x[i] - k) ** 2 * np.sin(x[i])
    return total

def doubled(x):
    return x * 2

def several(x, n):
    return x.sum(), {"a": x * n, "b": n}

def update(x, double):
    x[0] = double
    return x.sum()

def undefined(x):
    y = 2 * x
    return y + missing

def text(x):
    return "a"

def product(*xs):
    return xs[0] * xs[1]

@dflow.jit
def jitted(x):
    return np.sum(x * x)

gradient = dflow.grad(jitted)

@dflow.jit(static_argnums=1)
def static(x, n):
    return x ** n

class Model:
    @staticmethod
    def square(x):
        return x * x
"""

NORM = """\
func @norm(%x: f64[3], %k: f64) -> (f64) {
  %a = mul %x, %x : f64[3]
  %b = mul %x, %x : f64[3]
  %c = add %a, %b : f64[3]
  %s = reduce %c {kind = "sum", axes = (0,)} : f64
  %r = mul %s, %k : f64
  return %r
}
"""

CALLS = """\
func @f(%x: f64) -> (f64) {
  %y = call %x {callee = "g"} : f64
  return %y
}

func @g(%x: f64) -> (f64) {
  %y = sin %x : f64
  return %y
}
"""
