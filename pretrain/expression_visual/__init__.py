"""The expression-visual prior, from one frame to a head of Gaussians, its training task and its evidence."""

from pretrain.expression_visual.config import ExpressionVisualConfig
from pretrain.expression_visual.inference import ExpressionVisualPrior
from pretrain.expression_visual.task import ExpressionVisualTask

__all__ = ["ExpressionVisualConfig", "ExpressionVisualPrior", "ExpressionVisualTask"]
