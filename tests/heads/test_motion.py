"""Motion fields and the audio encoder."""

import pytest
import torch

from heads.compose import over
from heads.motion.audio import AudioNet, AudioWindowEncoder, frame_windows
from heads.motion.fields import FARTHEST, CrossModalMotion, FaceMotion, MouthMotion

POINTS = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def fields():
    face, mouth = FaceMotion(audio=8), MouthMotion(audio=8)
    cross = CrossModalMotion({"audio": 8, "units": 7})
    audio, units = torch.randn(3, 8), torch.rand(3, 7)
    return [
        (face, lambda a, u, **k: face(POINTS, a, u, **k), audio, units),
        (mouth, lambda a, u, **k: mouth(POINTS, a, **k), audio, units),
        (cross, lambda a, u, **k: cross(POINTS, audio=a, units=u, **k), audio, units),
    ]


@pytest.mark.parametrize("index", range(3))
def test_a_new_field_moves_nothing_and_can_learn(index):
    field, call, audio, units = fields()[index]
    motion = call(audio[0], units[0])
    for values, width in ((motion.means, 3), (motion.scales, 3), (motion.quats, 4)):
        if values is not None:
            assert values.shape == (50, width)
            assert torch.equal(values, torch.zeros_like(values))
    (motion.means - 0.1).square().sum().backward()
    last = [p for p in field.decide.parameters() if p.dim() == 2][-1]
    assert last.grad.abs().sum() > 0


@pytest.mark.parametrize("index", range(3))
def test_a_trained_field_fits_a_target_and_batches_like_single_frames(index):
    torch.manual_seed(index)
    field, call, audio, units = fields()[index]
    target = torch.randn(3, 50, 3) * 0.02
    optimizer = torch.optim.AdamW(field.parameter_groups(rate=5e-3, grid_rate=5e-2))
    losses = []
    for _ in range(60):
        loss = (call(audio, units).means - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    batch = call(audio, units).means
    single = torch.stack([call(audio[i], units[i]).means for i in range(3)])
    torch.testing.assert_close(batch, single, rtol=1e-4, atol=1e-6)
    cached = call(audio, units, features=field.features(POINTS)).means
    torch.testing.assert_close(batch, cached)


@pytest.mark.parametrize("index", range(3))
def test_no_field_moves_anything_further_than_a_jaw_drops_and_small_motion_is_as_it_was(index):
    torch.manual_seed(index)
    field, call, audio, units = fields()[index]
    last = [p for p in field.decide.parameters() if p.dim() == 2][-1]
    start = torch.randn_like(last)

    def means(scale: float) -> torch.Tensor:
        with torch.no_grad():
            last.copy_(scale * start)
            return call(audio, units).means

    small, large = means(1e-4), means(1e6)
    assert 0 < float(small.norm(dim=-1).max()) < 0.01
    assert float(large.norm(dim=-1).max()) <= FARTHEST + 1e-6
    assert float(large.norm(dim=-1).median()) > 0.9 * FARTHEST
    torch.testing.assert_close(means(2e-4), 2 * small, rtol=1e-3, atol=1e-9)


def test_the_mouth_moves_mostly_up_and_down():
    field = MouthMotion(audio=4)
    with torch.no_grad():
        field.decide[-1].weight.fill_(1.0)
    x, y, z = field(POINTS, torch.ones(4)).means.unbind(-1)
    assert y.abs().sum() > 0
    torch.testing.assert_close(x * 5, y)
    torch.testing.assert_close(z * 5, y)


def test_region_attention_to_units_is_never_negative():
    field = FaceMotion()
    to_audio, to_units = field.attention(field.features(POINTS))
    assert to_audio.shape == (50, 32)
    assert to_units.min() >= 0


def test_fields_refuse_wrong_shapes():
    with pytest.raises(ValueError, match=r"audio: expected shape \[32\] or \[B, 32\], got \(5,\)"):
        FaceMotion()(POINTS, torch.zeros(5), torch.zeros(7))
    with pytest.raises(ValueError, match=r"positions: expected shape \[N, 3\]"):
        MouthMotion()(torch.zeros(4, 2), torch.zeros(32))
    with pytest.raises(ValueError, match="modalities: expected"):
        CrossModalMotion({"audio": 4})(POINTS, sound=torch.zeros(4))


def test_empty_scenes_give_empty_motion():
    assert FaceMotion()(torch.zeros(0, 3), torch.zeros(32), torch.zeros(7)).means.shape == (0, 3)


def test_frame_windows_are_centred_and_zero_past_the_ends():
    rows = torch.arange(1.0, 6.0)[:, None]
    assert frame_windows(rows, 4)[..., 0].tolist()[0] == [0, 0, 1, 2]
    assert frame_windows(rows, 4)[..., 0].tolist()[4] == [3, 4, 5, 0]
    assert frame_windows(torch.zeros(0, 3), 4).shape == (0, 4, 3)


@pytest.mark.parametrize("window", [2, 4, 8, 16])
def test_the_encoder_answers_for_some_frames_as_for_all(window):
    encoder = AudioWindowEncoder(12, 6, window=window)
    features = torch.randn(30, 12)
    some = torch.tensor([0, 1, 13, 29])
    torch.testing.assert_close(encoder(features)[some], encoder(features, some), rtol=1e-4, atol=1e-6)


def test_audio_net_refuses_a_window_it_was_not_built_for():
    with pytest.raises(ValueError, match="expected shape"):
        AudioNet(29)(torch.zeros(2, 8, 29))
    with pytest.raises(ValueError, match="2, 4, 8 or 16"):
        AudioNet(29, window=7)


def test_composition_follows_the_paper_and_needs_no_order_of_opaque_parts():
    face, mouth, eyes = torch.rand(3, 1, 4, 5, 3).unbind(0)
    a_face, a_mouth, a_eyes = torch.rand(3, 1, 4, 5, 1).unbind(0)
    color, alpha = over([(face * a_face, a_face), (mouth * a_mouth, a_mouth)])
    torch.testing.assert_close(color, face * a_face + mouth * a_mouth * (1 - a_face))
    torch.testing.assert_close(alpha, 1 - (1 - a_face) * (1 - a_mouth))
    color, _ = over([(eyes, torch.zeros_like(a_eyes)), (face, torch.ones_like(a_face)), (mouth, a_mouth)])
    torch.testing.assert_close(color, eyes + face)
    color, alpha = over([(face * a_face, a_face)], background=torch.ones(3))
    assert torch.equal(alpha, torch.ones_like(alpha))
    with pytest.raises(ValueError, match="differ in size"):
        over([(face, a_face), (mouth[:, :2], a_mouth[:, :2])])
