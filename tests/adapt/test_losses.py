"""What the recipes minimise: which pixels are the head's, and how sure that is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from adapt.clip import Batch
from adapt.fit.losses import BARE, coverage_loss, head_target
from heads.masks import region_masks
from heads.rig import facemesh, load_rig

SIZE = 128


@pytest.fixture(scope="module")
def person():
    """A batch of one frame whose left half shows a person, from hair to shoulders, and the head's landmarks ``[478, 2]``."""
    rig = load_rig()
    points = rig.vertices(torch.zeros(1, rig.n_identity), torch.zeros(1, rig.n_expression))[0, :478]
    landmarks = points * 13 + torch.tensor([SIZE / 2, SIZE / 2, 0])
    masks = {k: m[..., None] for k, m in region_masks(landmarks[None], SIZE, SIZE, ("sure_head",)).items()}
    matte = torch.zeros(1, SIZE, SIZE, 1)
    matte[:, :, : SIZE // 2] = 1
    return Batch(torch.zeros(1), torch.zeros(1, SIZE, SIZE, 3), matte, masks, {}), landmarks[:, :2]


def at(landmarks, row, outwards):
    """Row of a landmark, and the column that is as many half widths of the face left of its middle."""
    half = landmarks[list(facemesh.OVAL), 0].mean() - landmarks[list(facemesh.OVAL), 0].min()
    return int(landmarks[row, 1]), int(SIZE / 2 - outwards * half)


def test_hair_beside_the_eyes_is_the_heads_and_a_collar_beside_the_jaw_is_not(person):
    batch, landmarks = person
    target, sure = (value[0, ..., 0] for value in head_target(batch))
    hair, cheek = at(landmarks, facemesh.EYE_CORNERS[0], 1.6), at(landmarks, facemesh.LIP_CORNERS[0], 0.5)
    collar, throat = at(landmarks, facemesh.CHIN, 1.2), (int(landmarks[facemesh.CHIN, 1]) + 8, SIZE // 2 - 1)
    for place in (hair, cheek):
        assert (target[place], sure[place]) == (1, 1)
    for place in (collar, throat):
        assert target[place] == 0
        assert sure[place] == pytest.approx(BARE)
    assert (target[:, SIZE // 2 :].max(), sure[:, SIZE // 2 :].min()) == (0, 1)  # no person, so no head


def test_a_head_that_covers_a_collar_pays_less_than_one_that_covers_the_background_or_leaves_hair_bare(person):
    batch, landmarks = person
    target = head_target(batch)[0]

    def cost(place, value):
        alpha = target.clone()
        alpha[0, place[0], place[1]] = value
        return float(coverage_loss(SimpleNamespace(alpha=alpha), batch))

    eyes, chin = facemesh.EYE_CORNERS[0], facemesh.CHIN
    collar, hair, background = at(landmarks, chin, 1.2), at(landmarks, eyes, 1.6), at(landmarks, eyes, -1.6)
    assert cost(hair, 1) == cost(background, 0) == 0
    assert 0 < cost(collar, 1) < cost(hair, 0) == pytest.approx(cost(background, 1))
