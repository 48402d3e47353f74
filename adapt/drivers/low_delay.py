"""Which driver an avatar speaks by when it must answer at once."""

from __future__ import annotations

from adapt.drivers.base import Driver
from adapt.drivers.prior import PriorDriver
from adapt.drivers.ridge import RidgeDriver


def quickest(driver: Driver) -> Driver:
    """The same person's driver with the shortest look-ahead there is.

    A prior looks ahead a second or more, so the person's own regression speaks in its place; a driver without a shorter
    version is returned as it is.
    """
    if isinstance(driver, PriorDriver) and driver.regression is not None:
        return driver.regression.low_delay()
    return driver.low_delay() if isinstance(driver, RidgeDriver) else driver
