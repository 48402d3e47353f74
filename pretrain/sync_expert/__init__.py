"""Do these lips and this sound belong together: a SyncNet-like expert, its training task and its evidence."""

from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.inference import SyncExpert
from pretrain.sync_expert.task import SyncExpertTask

__all__ = ["SyncExpert", "SyncExpertConfig", "SyncExpertTask"]
