"""dflow's functions on the workers of Dask, joblib and Ray; each runs where it is installed.

Each program is a script, whose functions are pickled by value.
"""

import subprocess
import sys

import pytest

FUNCTIONS = """
import numpy as np
import dflow


def rectified(x):
    if x > 0:
        return x
    return 0.0 * x


@dflow.value_and_grad
def loss(p, power):
    total = 0.0
    for v in p:
        total += rectified(v) ** power
    return total


P = np.array([-1.0, 2.0, 3.0])
"""

PROGRAMS = {
    "dask": """
import dask

if __name__ == "__main__":
    tasks = [dask.delayed(loss)(P, power) for power in (2.0, 3.0)]
    print([value for value, _ in dask.compute(*tasks, scheduler="processes", num_workers=1)])
""",
    "distributed": """
from dask.distributed import Client

if __name__ == "__main__":
    with Client(n_workers=1, dashboard_address=None) as client:
        print([value for value, _ in client.gather(client.map(loss, [P, P], [2.0, 3.0]))])
""",
    "joblib": """
from joblib import Parallel, delayed

if __name__ == "__main__":
    print([value for value, _ in Parallel(2)(delayed(loss)(P, power) for power in (2.0, 3.0))])
""",
    "ray": """
import ray

if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    task = ray.remote(lambda p, power: loss(p, power))
    print([value for value, _ in ray.get([task.remote(P, power) for power in (2.0, 3.0)])])
""",
}


@pytest.mark.parametrize("package", PROGRAMS)
def test_workers_compile_what_they_are_sent(package, tmp_path):
    pytest.importorskip(package, reason=f"{package} is not installed")
    script = tmp_path / "script.py"
    script.write_text(FUNCTIONS + PROGRAMS[package])
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200)
    assert done.stdout.split("\n")[-2:-1] == ["[np.float64(13.0), np.float64(35.0)]"], done.stderr
