"""The audio-expression prior: a conditional diffusion transformer from speech to expression, its task and evidence."""

from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.audio_expression.task import AudioExpressionTask

__all__ = ["AudioExpressionConfig", "AudioExpressionPrior", "AudioExpressionTask"]
