"""The sync-expert prior, a SyncNet-like measure of whether lips and audio agree, its training task and its evidence."""

from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.inference import SyncExpert
from pretrain.sync_expert.task import SyncExpertTask

__all__ = ["SyncExpert", "SyncExpertConfig", "SyncExpertTask"]
