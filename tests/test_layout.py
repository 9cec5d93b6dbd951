"""The layout: packages, layers, ways of starting."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = {"dflow": "dflow", "dflow.ir": "ir", "dflow.backends": "backends"}  # package name -> folder
MOST_LINES = 500

# What a module may import besides its own layer. Layers are named by what an import says.
ALLOWED = {"ir": ("dflow.ir",), "backends": ("dflow.ir", "dflow.backends"), "dflow": ("dflow",)}

PROGRAM = """
import sys, dflow
assert not {"numpy", "llvmlite", "dflow.api"} & {*sys.modules}  # what names need is imported with them
assert all(hasattr(dflow, name) for name in dflow.__all__) and {*dflow.__all__} <= {*dir(dflow)}
import numpy as np, dflow.ir, dflow.backends
print(dflow.__file__)
print(float(dflow.grad(lambda x: np.sin(x) * x)(1.0)))
assert "dflow.numpy.namespace" not in sys.modules  # ufuncs do without
assert dflow.scipy.special.expit(0.0) == 0.5 and "nn" in dir(dflow)
assert "ml_dtypes" not in sys.modules  # which only programs with bfloat16 need
"""


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def package_name(folder: Path) -> str:
    """What a folder of the tree is imported as."""
    first, *rest = folder.relative_to(ROOT).parts
    top = {f: name for name, f in LAYERS.items()}[first]
    return ".".join((top, *rest))


def imported(path: Path) -> set[str]:
    """The absolute names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here, so that the layer can be read"
            names.add(f"{node.module}.{node.names[0].name}" if node.module == "dflow" else str(node.module))
    return names


# -- the tree ------------------------------------------------------------------------------------------------------


def test_pyproject_lists_the_packages_of_the_tree():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {p.parent for folder in LAYERS.values() for p in modules(folder)}
    assert sorted(listed["packages"]) == sorted(map(package_name, folders))
    assert listed["package-dir"] == LAYERS


def test_every_package_has_an_init():
    folders = {p.parent for folder in LAYERS.values() for p in modules(folder)}
    assert not [f for f in folders if not (f / "__init__.py").exists()]


def test_the_type_checker_sees_the_tree():
    links = {p.name: os.readlink(p) for p in (ROOT / ".typecheck/dflow").iterdir() if p.name[0] not in "._"}
    links |= {p.name: os.readlink(p) for p in (ROOT / ".typecheck/dflow").glob("__*.py")}
    wanted = {p.name: f"../../dflow/{p.name}" for p in (ROOT / "dflow").iterdir() if p.name != "__pycache__"}
    assert links == wanted | {"ir": "../../ir", "backends": "../../backends"}


@pytest.mark.parametrize("folder", LAYERS.values())
def test_imports_run_one_way(folder):
    for path in modules(folder):
        for name in imported(path):
            if name.partition(".")[0] == "dflow":
                assert name.startswith(ALLOWED[folder]), f"{path.relative_to(ROOT)} imports {name}"


def test_the_ir_needs_numpy_alone():
    for path in modules("ir"):
        known = {"dflow", "numpy", "ml_dtypes"}  # which gives NumPy bfloat16, where that is asked for
        foreign = {n.partition(".")[0] for n in imported(path)} - known - sys.stdlib_module_names
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


@pytest.mark.parametrize("folder", [*LAYERS.values(), "benchmarks", "docs"])
def test_files_are_short(folder):
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in modules(folder)}
    assert not {k: n for k, n in lengths.items() if n > MOST_LINES}


# -- ways of starting ----------------------------------------------------------------------------------------------


def python(program: str, cwd: Path, *, path: str = "", executable: str = sys.executable) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    env |= {"PYTHONPATH": path} if path else {}
    run = [executable, "-c", program]
    return subprocess.run(run, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def test_starts_from_the_repository_root():
    done = python("import sys; sys.path.insert(0, '')" + PROGRAM, ROOT)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split()[0]).parent == ROOT / "dflow"


def test_starts_where_it_is_installed(tmp_path):
    done = python(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["ir", "backends"])
def test_layers_have_one_name(name):
    done = python(f"import sys; sys.path.insert(0, '')\nimport {name}", ROOT)
    assert done.returncode != 0
    assert f"ImportError: this package is imported as 'dflow.{name}', not as '{name}'" in done.stderr


@pytest.mark.slow
def test_starts_from_a_wheel(tmp_path):
    """Builds from a copy, because setuptools leaves a build folder behind, and imports what the wheel holds."""
    import shutil

    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build", "tests")
    shutil.copytree(ROOT, source, ignore=skip)
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(wheel, check=True)
    (made,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(made)]
    subprocess.run(install, check=True)
    assert sorted(p.name for p in target.iterdir() if p.suffix != ".dist-info" and p.name != "bin") == ["dflow"]
    done = python(PROGRAM, tmp_path, path=str(target))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split()[0]).parent == target / "dflow"
