"""wav2vec 2.0: the last hidden state of any checkpoint of this type."""

from __future__ import annotations

from shards.features.speech import ConvolutionalFeature


class Wav2Vec2(ConvolutionalFeature):
    """Rows ``[T, C]``, 768 wide with the default weights; each the mean of the two rows of the model in a frame."""

    name = "wav2vec2"
    default_weights = "facebook/wav2vec2-base-960h"
    default_size = 768
    model_types = ("wav2vec2",)


FEATURE = Wav2Vec2
