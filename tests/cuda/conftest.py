"""The device that tests run on: the PTX interpreter, and with ``-m device`` a GPU."""

import pytest
from ptx.driver import FakeDriver

from dflow.backends.cuda import driver


def opened(fake):
    with fake.installed():
        driver.forget()
        yield fake
    driver.forget()


@pytest.fixture
def fake():
    """A fake driver of its own for a test that spoils it."""
    yield from opened(FakeDriver())


@pytest.fixture(scope="module", params=["interpreter", pytest.param("device", marks=pytest.mark.device)])
def gpu(request):
    """The fake driver, or None on a GPU."""
    if request.param == "interpreter":
        yield from opened(FakeDriver())
        return
    driver.forget()
    try:
        driver.device()
    except driver.DeviceError as e:
        pytest.skip(str(e))
    yield None
