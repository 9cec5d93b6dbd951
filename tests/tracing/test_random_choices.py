"""Random programs: what a compiled program gives is what Python gives, or it is refused."""

import importlib.util

import pytest
from random_choices import Program

import dflow


@pytest.mark.parametrize("seed", [13, 14, 3, 1])
def test_random_programs(seed, tmp_path):
    path = tmp_path / f"program_{seed}.py"
    path.write_text(Program(seed).source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compiled, gradient = dflow.jit(module.f), dflow.grad(module.f)
    for x, n in ((0.37, 3), (1.21, 6), (-0.83, 0)):
        assert compiled(x, n) == pytest.approx(module.f(x, n), rel=1e-9)
        near, nearer = ((module.f(x + h, n) - module.f(x - h, n)) / (2 * h) for h in (1e-6, 3e-7))
        if abs(near - nearer) < 1e-4 * (1 + abs(near)):  # no kink
            assert gradient(x, n) == pytest.approx(near, rel=1e-4, abs=1e-5)
