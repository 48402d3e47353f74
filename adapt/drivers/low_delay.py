"""Which driver an avatar uses when it must answer at once."""

from __future__ import annotations

from adapt.drivers.base import Driver
from adapt.drivers.live import LiveDriver
from adapt.drivers.prior import PriorDriver
from adapt.drivers.ridge import RidgeDriver
from configs import InputError, progress
from configs.records import FeatureRecord
from pretrain.roles import LiveFilter
from shards.features import open_feature


def quickest(driver: Driver, record: FeatureRecord | None = None, *, any_feature: bool = True) -> Driver:
    """The same person's driver with a short look-ahead.

    A prior looks ahead a second or more, so a regression takes its place: that of the prior for live use, corrected on the
    person's clip, if the avatar has it and its encoder is there; else the one on the clip alone, on log-mel if the avatar
    has it. Its lips are pressed as the prior's are. A driver without a shorter version is returned unchanged.

    Args:
        record: of the avatar's audio feature, whose encoder the prior's regression needs; ``None``: it is not used.
        any_feature: whether the driver may use another audio feature than the avatar's, see :func:`heard_by`.
    """
    if isinstance(driver, PriorDriver) and any_feature and record is not None and _encodes(driver.live, record):
        assert driver.live is not None
        return driver.live.closed(driver.closing)
    if isinstance(driver, PriorDriver) and driver.quick is not None and any_feature:
        return driver.quick.low_delay().closed(driver.closing)
    if isinstance(driver, PriorDriver) and driver.regression is not None:
        return driver.regression.low_delay().closed(driver.closing)
    return driver.low_delay() if isinstance(driver, RidgeDriver) else driver


def _encodes(live: LiveDriver | None, record: FeatureRecord) -> bool:
    """Whether there is such a driver, and its encoder on this machine in the same revision."""
    if live is None:
        return False
    try:
        open_feature(live_record(live, record)).load()
    except InputError as error:
        progress.warn(f"live use hears log-mel: {error}")
        return False
    return True


def live_record(live: LiveFilter | LiveDriver, record: FeatureRecord) -> FeatureRecord:
    """The record of the feature of a regression for live use, with the encoder of the prior's or avatar's ``record``."""
    return FeatureRecord(name=live.feature, size=len(live.mean), weights=record["weights"], revision=live.revision)


def heard_by(driver: Driver, record: FeatureRecord, *, any_feature: bool = True) -> FeatureRecord:
    """The record of the audio feature that a driver uses: its own, else the avatar's ``record``.

    Args:
        any_feature: false where the same rows also drive an avatar's model, which takes only those of the avatar's feature.
    """
    if isinstance(driver, LiveDriver):
        return live_record(driver, record)
    own = driver.feature and driver.feature != record["name"]
    return open_feature(driver.feature).record if own and any_feature else record
