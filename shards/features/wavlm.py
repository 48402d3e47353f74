"""WavLM: the last hidden state of any checkpoint of this type."""

from __future__ import annotations

from shards.features.speech import ConvolutionalFeature


class WavLM(ConvolutionalFeature):
    """Rows ``[T, C]``, 768 wide with the default weights; each the mean of the two rows of the model in a frame."""

    name = "wavlm"
    default_weights = "microsoft/wavlm-base"
    default_size = 768
    model_types = ("wavlm",)


FEATURE = WavLM
