"""The body inpainter touches the head region and nothing else."""

import pytest
import torch

from heads.person.inpaint import BodyInpainter, fill_hole


def scene(height=37, width=50):
    g = torch.Generator().manual_seed(1)
    frame = torch.rand(2, height, width, 3, generator=g)
    alpha = torch.rand(2, height, width, 1, generator=g)
    head = torch.rand(2, height, width, 3, generator=g) * alpha
    region = torch.zeros(2, height, width, 1)
    region[:, 8:30, 10:40] = 1.0
    region[:, 7, 10:40] = 0.4
    return head, alpha, frame, region


def trained():
    net = BodyInpainter(width=4, depth=2)
    torch.nn.init.normal_(net.last.weight)
    return net


def test_pixels_outside_the_region_come_back_bit_equal():
    head, alpha, frame, region = scene()
    out = trained()(head, alpha, frame, region)
    outside = (region == 0).expand_as(frame)
    assert torch.equal(out[outside], frame[outside])
    assert not torch.allclose(out[~outside], frame[~outside])


def test_the_frames_pixels_inside_the_region_are_never_looked_at():
    head, alpha, frame, region = scene()
    net, hidden = trained(), (region >= 1).expand_as(frame)
    other = torch.where(hidden, torch.rand_like(frame), frame)
    torch.testing.assert_close(net(head, alpha, other, region)[hidden], net(head, alpha, frame, region)[hidden])


def test_a_new_inpainter_is_the_plain_composition():
    head, alpha, frame, region = scene()
    out = BodyInpainter()(head, alpha, frame, region)
    full = (region >= 1).expand_as(frame)
    hole = (region > 0).float().permute(0, 3, 1, 2)
    image = frame.permute(0, 3, 1, 2)
    filled = fill_hole(torch.where(hole > 0, torch.zeros_like(image), image), hole).permute(0, 2, 3, 1)
    torch.testing.assert_close(out[full], (head + (1 - alpha) * filled)[full])


def test_holes_are_filled_from_their_rim_and_full_holes_are_grey():
    image = torch.full((1, 3, 33, 20), 0.25)
    hole = torch.zeros(1, 1, 33, 20)
    hole[..., 5:25, 4:16] = 1
    torch.testing.assert_close(fill_hole(image, hole), image)
    assert torch.equal(fill_hole(image, torch.ones_like(hole)), torch.full_like(image, 0.5))


def test_it_learns_and_its_gradient_reaches_the_head():
    head, alpha, frame, region = scene()
    net = BodyInpainter(width=4, depth=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = (net(head.requires_grad_(), alpha, frame, region) - 0.5).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert head.grad.abs().sum() > 0


def test_wrong_shapes_are_told():
    head, alpha, frame, region = scene()
    with pytest.raises(ValueError, match="expected head and frame"):
        trained()(head[:, :5], alpha, frame, region)


def test_the_correction_is_the_network_on_a_picture_that_is_composed_already():
    torch.manual_seed(0)
    net = BodyInpainter(4, 2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    composed, frame = torch.rand(2, 18, 23, 3), torch.rand(2, 18, 23, 3)
    whole = torch.ones(2, 18, 23, 1)
    expected = net(composed, whole, frame, whole) - composed
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(net.correction(composed), expected, atol=1e-5, rtol=1e-5)
