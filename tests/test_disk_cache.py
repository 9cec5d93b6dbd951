"""Machine code on disk: found again by another process, and by nothing that it was not made for."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import dflow
from dflow.backends.native import generation, object_cache
from dflow.backends.native.object_code import ObjectCode
from dflow.programs import sharing


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch):
    """The names of the programs that LLVM has seen."""
    seen = []
    plain = generation.generate

    def generate(plan, **options):
        seen.append(plan.function.name)
        return plain(plan, **options)

    monkeypatch.setattr("dflow.backends.native.generation.generate", generate)
    return seen


def program(scale):
    def f(x):
        total = 0.0
        for v in x:
            total += np.sin(scale * v)
        return total

    return f


X = np.linspace(0.0, 1.0, 5)


def fresh(scale=2.0):
    """A program that nothing in this process has compiled yet, as after a new start."""
    sharing.PROGRAMS.clear()
    return program(scale)


def test_the_same_program_is_found(cache, compiled):
    for _ in range(3):
        assert dflow.jit(fresh(2.0))(X) == pytest.approx(np.sin(2 * X).sum())
        np.testing.assert_allclose(dflow.grad(fresh(2.0))(X), 2 * np.cos(2 * X))
    assert len(compiled) == 2


def test_what_a_closure_holds_is_part_of_the_program(cache, compiled):
    for scale in (2.0, 3.0, np.nextafter(3.0, 4.0)):
        dflow.jit(fresh(scale))(X)
    assert len(compiled) == 3


def test_every_element_of_a_large_array_counts(cache, compiled):
    table = np.arange(1000.0)
    for k in (None, None, 500):
        if k is not None:
            table = table.copy()
            table[k] = np.nextafter(table[k], 0.0)
        sharing.PROGRAMS.clear()
        dflow.jit(lambda x, table=table: (x * table).sum())(2.0)
    assert len(compiled) == 2


@pytest.mark.parametrize("args", [(X.astype(np.float32),), (X[:4],), (X.reshape(5, 1)[:, 0] * 1j != 0,)])
def test_other_types_are_another_program(cache, compiled, args):
    dflow.jit(fresh(2.0))(X)
    dflow.jit(fresh(2.0))(*args)
    assert len(compiled) == 2


def test_stages_of_a_found_program_can_be_read(cache):
    dflow.jit(fresh(2.0))(X)
    lowered = dflow.jit(fresh(2.0)).lower(X)
    assert lowered.compile()(X)[0] == pytest.approx(np.sin(2 * X).sum())
    assert "define" in lowered.llvm() and "ret" in lowered.asm() and "for" in lowered.ir("lowered")


def test_errors_name_the_line_after_the_cache_too(cache):
    def pick(x, i):
        return x[i]

    texts = []
    for _ in range(2):
        with pytest.raises(IndexError) as e:
            dflow.jit(pick)(X, 7)
        texts.append(str(e.value))
    assert texts[0] == texts[1] and Path(__file__).name in texts[0]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_damaged_entries_are_made_anew(cache, compiled, damage):
    dflow.jit(fresh(2.0))(X)
    for path in sorted(cache.iterdir()):
        data = bytearray(path.read_bytes())
        if damage == "cut":
            del data[len(data) // 2 :]
        elif damage == "flip":
            data[-10] ^= 1
        elif damage == "empty":
            data.clear()
        else:  # an entry of another program, renamed
            object_cache.write("other", bytes(data))
            data = bytearray((cache / "other.dflow").read_bytes())
        path.write_bytes(data)
    (cache / "other.dflow").unlink(missing_ok=True)
    assert dflow.jit(fresh(2.0))(X) == pytest.approx(np.sin(2 * X).sum())
    assert len(compiled) == 2
    dflow.jit(fresh(2.0))(X)
    assert len(compiled) == 2


@pytest.mark.parametrize("place", ["/proc/no/such/folder", "a\0b"])
def test_a_folder_that_cannot_be_made(monkeypatch, tmp_path, place):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(object_cache, "folder", lambda: Path(place) if "\0" not in place else blocked / "below")
    assert dflow.jit(fresh(2.0))(X) == pytest.approx(np.sin(2 * X).sum())


def test_off(monkeypatch, tmp_path):
    monkeypatch.setenv("DFLOW_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dflow.jit(fresh(2.0))(X)
    assert not list(tmp_path.iterdir())


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("DFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert object_cache.folder() == tmp_path / "dflow"


def test_the_size_is_bounded(cache, monkeypatch):
    monkeypatch.setenv("DFLOW_CACHE_SIZE", "0.02")
    for k in range(200):
        object_cache.write(f"{k}", bytes(1000))
        os.utime(cache / f"{k}.dflow", (k, k))
    count, size = object_cache.size()
    assert count < 100 and size < object_cache.limit() + 64 * 1100
    assert object_cache.read("199") and object_cache.read("0") is None


def test_writers_do_not_disturb_each_other(cache):
    def work():
        for k in range(50):
            object_cache.write(f"{k % 5}", bytes([k % 5]) * 1000)
            found = object_cache.read(f"{k % 5}")
            assert found in (None, bytes([k % 5]) * 1000)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert object_cache.size()[0] == 5


def test_object_code_survives_as_bytes():
    def pick(x, i):
        return x[i]

    made = generation.generate(dflow.jit(pick).lower(X, 1).stages.plan)
    assert ObjectCode.from_bytes(made.object.to_bytes()) == made.object
    assert made.object.checks


def test_another_process_finds_it(cache):
    script = """
import numpy as np, dflow
from dflow.backends.native import generation
calls = []
plain = generation.optimize
generation.optimize = lambda *a, **k: calls.append(1) or plain(*a, **k)
def f(x):
    return np.sin(x) ** 2
print(float(dflow.grad(f)(0.7)).hex(), len(calls))
"""
    path = cache.parent / "program.py"
    path.write_text(script)
    env = {**os.environ, "PYTHONPATH": str(Path(dflow.__file__).parent.parent)}

    def run():
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, env=env)
        return done.stdout.split()

    (first, some), (second, fewer) = run(), run()
    assert first == second and float.fromhex(first) == pytest.approx(np.sin(1.4))
    assert int(some) > int(fewer)


def test_a_large_folder_shrinks_a_few_entries_at_a_time(cache, monkeypatch):
    for k in range(30):
        object_cache.write(f"{k}", bytes(1000))
        os.utime(cache / f"{k}.dflow", (k, k))
    monkeypatch.setattr(object_cache, "AT_ONCE", 4)
    monkeypatch.setenv("DFLOW_CACHE_SIZE", "0.004")
    counts = []
    for _ in range(9):
        object_cache._shrink(cache)
        counts.append(object_cache.size()[0])
    assert counts[:3] == [26, 22, 18], "the oldest go first, as many as do not take long"
    assert counts[-1] == counts[-2] and object_cache.size()[1] <= object_cache.limit()
    assert object_cache.read("29") and object_cache.read("0") is None
