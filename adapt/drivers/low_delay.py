"""Which driver an avatar uses when it must answer at once."""

from __future__ import annotations

from adapt.drivers.base import Driver
from adapt.drivers.prior import PriorDriver
from adapt.drivers.ridge import RidgeDriver
from configs.records import FeatureRecord
from shards.features import open_feature


def quickest(driver: Driver, *, any_feature: bool = True) -> Driver:
    """The same person's driver with the shortest look-ahead there is.

    A prior looks ahead a second or more, and a speech encoder takes in seconds at a time, so a regression on the person's
    own clip takes its place: the one on log-mel if the avatar has it. Its lips are pressed as the prior's are. A driver
    without a shorter version is returned unchanged.

    Args:
        any_feature: whether the driver may use another audio feature than the avatar's, see :func:`heard_by`.
    """
    if isinstance(driver, PriorDriver) and driver.quick is not None and any_feature:
        return driver.quick.low_delay().closed(driver.closing)
    if isinstance(driver, PriorDriver) and driver.regression is not None:
        return driver.regression.low_delay().closed(driver.closing)
    return driver.low_delay() if isinstance(driver, RidgeDriver) else driver


def heard_by(driver: Driver, record: FeatureRecord, *, any_feature: bool = True) -> FeatureRecord:
    """The record of the audio feature that a driver uses: its own, else the avatar's ``record``.

    Args:
        any_feature: false where the same rows also drive an avatar's model, which takes only those of the avatar's feature.
    """
    own = driver.feature and driver.feature != record["name"]
    return open_feature(driver.feature).record if own and any_feature else record
