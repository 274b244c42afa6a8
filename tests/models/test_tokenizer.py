import dataclasses
import pickle
from fractions import Fraction

import pytest
import torch
from torch import nn

from coordtok.errors import ConfigError, DataError
from coordtok.geometry.groups import patch_groups
from coordtok.geometry.patches import gather, unpatchify
from coordtok.geometry.pixels import from_uint8
from coordtok.losses.reconstruction import mse_per_clip
from coordtok.models.tokenizer import CoordTok
from tests.models.conftest import ODD


def draw_index(model: CoordTok, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    axes = [torch.randint(0, n, shape, generator=generator) for n in model.decoder.grid.shape]
    return torch.stack(axes, dim=-1)


def loss_of(model: CoordTok, video: torch.Tensor, num_frames=None) -> torch.Tensor:
    index = draw_index(model, 2, 20)
    target = gather(from_uint8(video), index, model.config.decoder_patch)
    return mse_per_clip(model(video, index, num_frames), target).mean()


def test_shapes_follow_every_axis(model, video) -> None:
    planes = model.encode(video)
    assert [tuple(plane.shape) for plane in planes] == [(2, 4, 6, 4), (2, 8, 4, 4), (2, 8, 6, 4)]
    assert model.decode(planes).shape == video.shape
    assert model.decode_at(planes, draw_index(model, 2, 7)).shape == (2, 7, 2, 4, 8, 3)


def test_pooled_tokens_start_as_the_mean_over_the_axis_that_their_plane_lacks(video) -> None:
    config = dataclasses.replace(
        ODD, plane_size=(6, 4, 6), plane_patch=(1, 1, 2), plane_start="pooled"
    )
    model = CoordTok(config)
    features = torch.randn(2, 6 * 4 * 3, config.dim)
    grid = features.unflatten(1, (6, 4, 3))
    for tokens, mean in zip(
        model.encoder.planes.tokens, (grid.mean(1), grid.mean(3), grid.mean(2))
    ):
        torch.testing.assert_close(tokens(features) - tokens.position, mean.flatten(1, 2))
    assert [tuple(plane.shape[1:]) for plane in model.encode(video)] == [
        (4, 6, 4), (6, 4, 4), (6, 6, 4)
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"makes 3 query tokens along t where .* makes 6 video"):
        dataclasses.replace(config, plane_patch=(2, 1, 2))


def test_content_planes_start_from_their_part_of_the_video() -> None:
    config = dataclasses.replace(
        ODD,
        plane_size=(6, 4, 6),
        plane_patch=(1, 1, 2),
        plane_start="pooled",
        content_planes=3,
        plane_channels=(5, 2, 1),
    )
    model = CoordTok(config)
    features = torch.randn(2, 6 * 4 * 3, config.dim)
    thirds = features.unflatten(1, (3, 2, 4, 3)).mean(2)
    for number, tokens in enumerate(model.encoder.planes.tokens[:3]):
        found = tokens(features) - tokens.position
        torch.testing.assert_close(found, thirds[:, number].flatten(1, 2))
    with pytest.raises(ConfigError, match="content_planes is 4, which does not divide the 6"):
        dataclasses.replace(config, content_planes=4)


def test_planes_of_any_names_can_be_pickled(video) -> None:
    for config in (ODD, dataclasses.replace(ODD, content_planes=3)):
        planes = CoordTok(config).encode(video)
        again = pickle.loads(pickle.dumps(planes))
        assert type(again) is type(planes)
        assert all(torch.equal(a, b) for a, b in zip(again, planes))


def test_a_patch_is_decoded_from_the_content_plane_of_its_time(video) -> None:
    config = dataclasses.replace(ODD, content_planes=3, linear_path=True, plane_size=(4, 4, 3))
    config = dataclasses.replace(config, plane_patch=(2, 2, 1), decoder_layers=0)
    model = CoordTok(config)
    torch.nn.init.normal_(model.decoder.head.weight)
    planes = model.encode(video)
    before = model.decode(planes)
    changed = planes._replace(xy1=planes.xy1 + 1)
    frames = (model.decode(changed) != before).flatten(2).any(-1).all(0).nonzero().flatten()
    assert frames.tolist() == list(range(config.frames // 3, 2 * config.frames // 3))


def test_blocks_that_start_at_zero_hand_on_what_they_are_given(video) -> None:
    model = CoordTok(dataclasses.replace(ODD, zero_init=True))
    tokens = torch.randn(2, 5, ODD.dim)
    assert torch.equal(model.decoder.blocks(tokens), tokens)
    assert torch.equal(model.encoder.planes.blocks(tokens, tokens), tokens)
    assert not model(video, draw_index(model, 2, 7)).any()
    index = draw_index(model, 2, 7)
    model(video, index).sub(1).square().mean().backward()
    assert model.decoder.head.weight.grad.abs().sum() > 0


def test_bytes_and_floats_are_the_same_video(model, video) -> None:
    for num_frames in (None, [5, 24]):
        for a, b in zip(
            model.encode(video, num_frames), model.encode(from_uint8(video), num_frames)
        ):
            assert torch.equal(a, b)


def test_groups_attend_to_themselves_only(model, video) -> None:
    index = draw_index(model, 2, 3, 10)
    together = model(video, index)
    assert together.shape == (2, 3, 10, 2, 4, 8, 3)
    alone = torch.stack([model(video, part) for part in index.unbind(1)], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    for size in (1, 2):
        chunked = model(video, index, groups_per_pass=size)
        torch.testing.assert_close(together, chunked, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        model.decode_at(model.encode(video), index[:, 0]), alone[:, 0], atol=1e-5, rtol=0
    )


def test_forward_in_groups_is_decode(model, video) -> None:
    """Validation sees through `forward` (all that ZeRO-3 allows) what `decode` gives."""
    grid = model.decoder.grid
    index = torch.stack(patch_groups(grid, 96, "contiguous")).expand(2, -1, -1, -1)
    video_again = unpatchify(model(video, index, groups_per_pass=1).flatten(1, 2), grid)
    decoded = model.decode(model.encode(video), points_per_pass=96, grouping="contiguous")
    torch.testing.assert_close(decoded, video_again.clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("grouping", ["strided", "contiguous", "random"])
@pytest.mark.parametrize("points", [1, 100, 250, 10_000])
def test_frames_on_their_own_are_those_of_the_whole(model, video, grouping, points) -> None:
    planes = model.encode(video)
    whole = model.decode(planes, points_per_pass=points, grouping=grouping)
    for frames in ([5], [23, 0, 7, 7, -1], range(24), torch.tensor([3, 4]), []):
        part = model.decode(
            planes, frames, points, grouping=grouping, groups_per_pass=1 + len(frames) % 3
        )
        torch.testing.assert_close(part, whole[:, list(frames)], atol=1e-5, rtol=0)


def test_a_frame_costs_its_own_pass_only(model, video) -> None:
    planes, decoded = model.encode(video), []
    model.decoder.register_forward_pre_hook(lambda _, args: decoded.append(args[1].shape))
    model.decode(planes, points_per_pass=100)
    assert sum(shape[1] * shape[2] for shape in decoded) == model.decoder.grid.count
    assert max(shape[1] * shape[2] for shape in decoded) <= 144
    decoded.clear()
    model.decode(planes, frames=[6, 7], points_per_pass=100)
    assert len(decoded) == 1


def test_a_random_group_is_of_patches_all_over_the_clip(model, video) -> None:
    """As in training: every pass holds patches of most frames, so one frame costs most passes."""
    planes, decoded = model.encode(video), []
    model.decoder.register_forward_pre_hook(lambda _, args: decoded.append(args[1]))
    model.decode(planes, frames=[6], points_per_pass=64, grouping="random")
    assert len(decoded) == 9
    assert all(len(index[..., 0].unique()) > 9 for index in decoded)
    first, again, other = (
        model.decode(planes, points_per_pass=64, grouping="random", seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_passes_aim_at_the_trained_number_of_points(model, video) -> None:
    model.points_per_pass = 100
    planes = model.encode(video)
    assert torch.equal(model.decode(planes), model.decode(planes, points_per_pass=100))
    assert not torch.equal(model.decode(planes), model.decode(planes, points_per_pass=500))


@pytest.fixture
def thin_config(odd_config):
    """Patches one frame deep: what lies between frames can be asked for."""
    return dataclasses.replace(odd_config, decoder_patch=(1, 4, 8))


@pytest.fixture
def thin(thin_config):
    torch.manual_seed(0)
    return CoordTok(thin_config).eval()


@pytest.mark.parametrize("grouping", ["strided", "contiguous", "random"])
def test_whole_times_are_frames(thin, video, grouping) -> None:
    planes = thin.encode(video)
    frames = thin.decode(planes, [3, 23, 0], 200, grouping=grouping)
    times = thin.decode(planes, None, 200, times=[3, 23.0, Fraction(0)], grouping=grouping)
    assert torch.equal(times, frames)


@pytest.mark.parametrize("grouping", ["strided", "contiguous", "random"])
def test_a_time_does_not_depend_on_the_others(thin, video, grouping) -> None:
    planes = thin.encode(video)
    times = [5, 4.5, Fraction(14, 3), 22.99, 0.5]
    many = thin.decode(planes, None, 200, times=times, grouping=grouping, groups_per_pass=2)
    for place, time in enumerate(times):
        one = thin.decode(planes, None, 200, times=[time], grouping=grouping)
        torch.testing.assert_close(one, many[:, [place]], atol=1e-5, rtol=0)


def test_times_run_on_smoothly_from_frame_to_frame(thin, video) -> None:
    planes = thin.encode(video)
    before, after = thin.decode(planes, [4, 5], points_per_pass=192).unbind(1)
    steps = [4, 4.001, 4.25, 4.5, 4.75, 4.999, 5]
    between = thin.decode(planes, None, 192, times=steps).unbind(1)
    for near, frame in ((between[1], before), (between[-2], after)):
        torch.testing.assert_close(near, frame, atol=2e-3, rtol=0)
    distances = [float((each - before).square().mean()) for each in between]
    assert distances == sorted(distances)


def test_between_frames_planes_and_positions_are_read_between(thin_config) -> None:
    torch.manual_seed(0)
    model = CoordTok(dataclasses.replace(thin_config, decoder_layers=0)).eval()
    model.decoder.norm = nn.Identity()  # all that is left is linear in the position
    planes = model.encode(torch.zeros(1, *thin_config.video_size, 3, dtype=torch.uint8))
    planes = planes.map(torch.zeros_like)
    ramp = torch.arange(24.0).view(1, 24, 1, 1)
    frames = model.decode(planes)
    middle = model.decode(planes, times=[7.25])[:, 0]
    torch.testing.assert_close(middle, torch.lerp(frames[:, 7], frames[:, 8], 0.25))
    nn.init.zeros_(model.decoder.position)
    planes = planes._replace(yt=torch.linspace(0, 0.3, 8).view(1, 8, 1, 1).expand_as(planes.yt))
    frames, times = model.decode(planes), model.decode(planes, times=[0.5, 7.25, 22.75])
    assert frames.abs().max() < 1  # so that nothing is clipped
    slope = (frames[:, -1:] - frames[:, :1]) / 23
    torch.testing.assert_close(frames, frames[:, :1] + slope * ramp.unsqueeze(-1))
    expected = frames[:, :1] + slope * torch.tensor([0.5, 7.25, 22.75]).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(times, expected)


@pytest.mark.parametrize("time", [-0.5, 23.01, float("nan"), float("inf"), Fraction(99, 4)])
def test_times_outside_the_video(thin, video, time) -> None:
    with pytest.raises(ConfigError, match="is outside the video; its frames are at 0 to 23"):
        thin.decode(thin.encode(video), times=[3, time])


def test_times_that_cannot_be_asked_for(model, thin, video) -> None:
    with pytest.raises(ConfigError, match=r"decoder_patch is \(2, 4, 8\) of 24 frames; times"):
        model.decode(model.encode(video), times=[3])
    with pytest.raises(ConfigError, match="both frames and times are given; choose one"):
        thin.decode(thin.encode(video), [3], times=[3])


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 7.0])
@pytest.mark.parametrize("num_frames", [[1, 24], [7, 9], [8, 23]])
def test_padded_frames_have_exactly_no_influence(model, video, garbage, num_frames) -> None:
    clean = from_uint8(video)
    dirty = clean.clone()
    for clip, count in enumerate(num_frames):
        dirty[clip, count:] = garbage
    index = draw_index(model, 2, 10)
    for a, b in zip(model.encode(clean, num_frames), model.encode(dirty, num_frames)):
        assert torch.equal(a, b)
    counts = torch.tensor(num_frames)
    assert torch.equal(model(clean, index, counts), model(dirty, index, counts))


def test_what_is_masked_is_the_padding_and_nothing_else(model, video) -> None:
    """4 frames a tubelet: with 9 real frames the first three tubelets of six are attended to."""
    kept = [model.encode(video, [count, count]).xy for count in (9, 12, 13)]
    changed = video.clone()
    changed[:, 8] += 50
    assert not torch.equal(model.encode(changed, [9, 9]).xy, kept[0])
    black = video.clone()
    black[:, 9:] = 0
    assert torch.equal(model.encode(black, [12, 12]).xy, kept[0])
    assert not torch.equal(model.encode(black, [13, 13]).xy, kept[0])
    assert not torch.equal(model.encode(black).xy, kept[0])


def test_masks_hold_in_the_gradient(model, video) -> None:
    floats = from_uint8(video).requires_grad_()
    sum(plane.sum() for plane in model.encode(floats, [7, 24])).backward()
    assert not floats.grad[0, 7:].any()
    assert floats.grad[0, :7].any(dim=-1).any(dim=-1).any(dim=-1).all()
    assert floats.grad[1].abs().sum(dim=(1, 2, 3)).all()


def test_clips_of_full_length_need_no_mask(model, video) -> None:
    for a, b in zip(model.encode(video, [24, 24]), model.encode(video)):
        assert torch.equal(a, b)


def test_output_is_independent_of_the_callers_tensors(model, video) -> None:
    floats, index = from_uint8(video), draw_index(model, 2, 10)
    counts = torch.tensor([7, 24])
    given = (floats, index, counts)
    before = [tensor.clone() for tensor in given]
    first, again = model(*given), model(*given)
    planes = model.encode(floats, counts)
    decoded, chosen = model.decode(planes), model.decode_at(planes, index)
    assert all(torch.equal(a, b) for a, b in zip(before, given))
    expected = [tensor.clone() for tensor in (first, *planes, decoded, chosen)]
    for tensor in (floats, index, counts):
        tensor.zero_()
    assert torch.equal(first, again)
    results = (first, *planes, decoded, chosen)
    assert all(torch.equal(a, b) for a, b in zip(expected, results))
    for plane in planes:
        plane.zero_()
    assert torch.equal(decoded, expected[-2])


@pytest.mark.parametrize("num_frames", [None, torch.tensor([7, 24])])
def test_activation_checkpointing_changes_no_gradient(model, video, num_frames) -> None:
    gradients, runs = [], []
    model.decoder.blocks[0].register_forward_pre_hook(lambda *_: runs.append(1))
    for kind in (False, True, "selective"):
        model.set_activation_checkpointing(kind)
        model.zero_grad()
        loss = loss_of(model, video, num_frames)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert len(runs) == 4  # forward; forward and again in the backward pass; forward
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other))


def test_every_parameter_is_trained(model, video) -> None:
    loss_of(model, video).backward()
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


def test_bfloat16_parameters_give_float32_planes_and_pixels(model, video) -> None:
    expected = model(video, draw_index(model, 2, 20))
    pixels = model.bfloat16()(video, draw_index(model, 2, 20))
    assert {plane.dtype for plane in model.encode(video)} == {torch.float32}
    assert pixels.dtype == torch.float32
    assert (pixels - expected).abs().max() < 0.1


def test_parameters_are_final_when_their_own_module_is(odd_config, monkeypatch) -> None:
    """`deepspeed.zero.Init` takes them away right after: what comes later would be lost."""
    made = {}

    def watch(kind: type[nn.Module]) -> None:
        build = kind.__init__

        def watched(self, *args, **kwargs) -> None:
            build(self, *args, **kwargs)
            if type(self) is kind:
                made.update((p, p.clone()) for p in self.parameters(recurse=False))

        monkeypatch.setattr(kind, "__init__", watched)

    for kind in {type(module) for module in CoordTok(odd_config).modules()}:
        watch(kind)
    model = CoordTok(odd_config)
    assert all(torch.equal(parameter, made[parameter]) for parameter in model.parameters())


def test_a_fresh_model_starts_at_the_scale_of_the_pixels(model, video) -> None:
    planes = model.encode(video)
    assert all(0.2 < plane.std() < 2 for plane in planes)
    assert model.decode_at(planes, draw_index(model, 2, 99)).std() < 1


def test_the_class_token_is_dropped(model, video) -> None:
    tubelets = model.encoder.grid.count
    assert model.encoder.video(video).shape == (2, tubelets, model.config.dim)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda video: video[:, :20], r"this model takes \(B, 24, 32, 48, 3\): resize"),
        (lambda video: video[0], "this model takes"),
        (lambda video: video.movedim(-1, 2), "this model takes"),
        (lambda video: video.long(), "video is torch.int64; pass uint8, or float"),
    ],
)
def test_videos_the_model_cannot_take(model, video, change, message) -> None:
    with pytest.raises(DataError, match=message):
        model.encode(change(video))
    with pytest.raises(DataError, match=message):
        model(change(video), draw_index(model, 2, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda video: video.float(), "holds values from 0 to 255; float pixels are in .-1, 1."),
        (lambda video: from_uint8(video) * 1.01, "holds values from -1.01 to 1.01"),
        (lambda video: from_uint8(video).fill_(torch.nan), "holds values from nan to nan"),
    ],
)
def test_float_pixels_beyond_their_range_are_refused(model, video, change, message) -> None:
    with pytest.raises(DataError, match=message):
        model.encode(change(video))
    padded = from_uint8(video)
    padded[0, 20:], padded[1] = change(video)[0, 20:], 0
    model.encode(padded, num_frames=[20, 24])  # what padded frames hold is never looked at
    with pytest.raises(DataError, match="holds values"):
        model.encode(padded, num_frames=[21, 24])


def test_decoded_pixels_are_in_their_range(odd_config, video) -> None:
    model = CoordTok(odd_config).eval()
    nn.init.normal_(model.decoder.head.weight, std=3)
    planes = model.encode(video)
    whole, index = model.decode(planes, points_per_pass=10**6), draw_index(model, 2, 9)
    assert model.decode_at(planes, index).abs().max() > 1
    assert (whole.min(), whole.max()) == (-1, 1)
    nn.init.constant_(model.decoder.head.bias, torch.inf)
    assert model.decode(planes, [3]).isnan().all()  # and not the brightest white


@pytest.mark.parametrize(
    ("num_frames", "message"),
    [
        ([24], r"num_frames has shape \(1,\)"),
        ([0, 24], r"num_frames is \[0, 24\]; each must be 1 to 24"),
        ([25, 24], "each must be 1 to 24"),
        ([7.5, 24.0], "give whole numbers"),
    ],
)
def test_frame_counts_the_model_cannot_take(model, video, num_frames, message) -> None:
    with pytest.raises(DataError, match=message):
        model.encode(video, num_frames)


def test_patches_and_frames_that_do_not_exist(model, video) -> None:
    planes = model.encode(video)
    for bad in ([12, 0, 0], [0, 8, 0], [0, 0, 6], [0, 0, -1]):
        with pytest.raises(ConfigError, match=r"outside the grid \(12, 8, 6\)"):
            model.decode_at(planes, torch.tensor([[bad], [bad]]))
    for bad in (torch.zeros(2, 3), torch.zeros(2, 5, 3), torch.zeros(2, 5, 2, dtype=torch.long)):
        with pytest.raises(ConfigError, match="give int64"):
            model.decode_at(planes, bad)
    with pytest.raises(ConfigError, match="frame 24 is outside the video; it has 24 frames"):
        model.decode(planes, frames=[0, 24])
    with pytest.raises(ConfigError, match="points_per_pass is 0"):
        model.decode(planes, points_per_pass=0)
    with pytest.raises(ConfigError, match="groups_per_pass is 0"):
        model.decode(planes, groups_per_pass=0)


def test_planes_of_another_model(model, video) -> None:
    planes = model.encode(video)
    for name, plane in planes._asdict().items():
        other = planes._replace(**{name: plane[:, 1:]})
        with pytest.raises(DataError, match=f"plane {name} has shape .* the model that encoded it"):
            model.decode(other)
        with pytest.raises(DataError, match=f"plane {name} has shape"):
            model.decode_at(other, draw_index(model, 2, 3))


def test_axes_are_not_mixed_up(odd_config) -> None:
    """A step along one axis of the index reads, of the planes, only those that hold this axis."""
    torch.manual_seed(0)
    model = CoordTok(dataclasses.replace(odd_config, decoder_layers=0))
    planes = model.encode(torch.zeros(1, *odd_config.video_size, 3, dtype=torch.uint8))
    for name, axes in (("xy", (1, 2)), ("yt", (0, 1)), ("xt", (0, 2))):
        silent = planes.map(torch.zeros_like)._replace(**{name: getattr(planes, name)})
        torch.nn.init.zeros_(model.decoder.position)
        for axis in range(3):
            index = torch.zeros(1, 2, 3, dtype=torch.long)
            index[0, 1, axis] = model.decoder.grid.shape[axis] - 1
            first, last = model.decode_at(silent, index)[0]
            assert torch.equal(first, last) == (axis not in axes)
