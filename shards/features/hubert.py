"""HuBERT: the last hidden state of any checkpoint of this type."""

from __future__ import annotations

from shards.features.speech import ConvolutionalFeature


class Hubert(ConvolutionalFeature):
    """Rows ``[T, C]``, 768 wide with the default weights; each the mean of the two rows of the model in a frame."""

    name = "hubert"
    default_weights = "facebook/hubert-base-ls960"
    default_size = 768
    model_types = ("hubert",)


FEATURE = Hubert
