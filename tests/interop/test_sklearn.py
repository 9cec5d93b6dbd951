"""Arrays of dflow's in scikit-learn's array API dispatch; runs where scikit-learn is installed."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
import sklearn
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
import dflow

points = dflow.vmap(lambda t: np.stack([np.sin(t), np.cos(t), t]))(np.linspace(0.0, 3.0, 30))
with sklearn.config_context(array_api_dispatch=True):
    shares = PCA(2).fit(StandardScaler().fit_transform(points)).explained_variance_ratio_
print(type(shares).__name__, shares.round(2))
"""


def test_array_api_dispatch():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("array_api_compat", reason="array_api_compat is not installed")
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, env=environment)
    assert done.stdout == "ndarray [0.68 0.32]\n", done.stderr
