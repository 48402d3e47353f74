"""Speech to expression: a conditional diffusion transformer, its training task and its evidence."""

from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.audio_expression.task import AudioExpressionTask

__all__ = ["AudioExpressionConfig", "AudioExpressionPrior", "AudioExpressionTask"]
