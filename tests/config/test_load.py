import contextlib
import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from coordtok.config.load import build, load_config, preset_names, to_dict, to_yaml
from coordtok.config.models import DiTModelConfig, TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.errors import ConfigError
from tests.support.damaged_documents import damaged_tree

MINIMAL = {
    "run_dir": "runs/x",
    "model": {},
    "data": {"shards": "shards/x"},
    "train": {"steps": 10, "global_batch": 4},
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return str(path)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    saved = tmp_path / "config.yaml"
    saved.write_text(to_yaml(config))
    assert load_config(str(saved)) == config


def test_a_saved_config_is_plain_yaml(path: str) -> None:
    assert yaml.safe_load(to_yaml(load_config(path))) == to_dict(load_config(path))


def test_overrides_reach_every_depth_and_keep_their_types(path: str) -> None:
    config = load_config(
        path,
        [
            "seed=7",
            "optim.lr=3e-4",
            "model.video_patch=[4,8,8]",
            "train.micro_batch=2",
            "run_dir=a=b",
        ],
    )
    assert config.seed == 7
    assert config.optim.lr == 3e-4
    assert config.model.video_patch == (4, 8, 8)
    assert config.train.micro_batch == 2
    assert config.run_dir == "a=b"


def test_channels_are_one_number_or_those_of_the_planes(path: str) -> None:
    one, three = (
        load_config(path, [f"model.plane_channels={given}"]) for given in ("8", "[6, 2, 3]")
    )
    assert one.model.latent.channels == {"xy": 8, "yt": 8, "xt": 8}
    assert three.model.latent.channels == {"xy": 6, "yt": 2, "xt": 3}
    assert build(RunConfig, to_dict(three)) == three
    generator = DiTModelConfig().for_latent(three.model.latent)
    assert generator.plane_channels == (6, 2, 3)
    other = replace(generator, plane_channels=6)
    with pytest.raises(ConfigError, match=r"plane yt of .* model.plane_channels=\[6,2,3\]"):
        other.check_latent(three.model.latent, "shards/mine")


def test_a_generator_takes_the_content_planes_of_its_latents(path: str) -> None:
    model = load_config(path, ["model.content_planes=2"]).model
    assert model.latent.names == ("xy0", "xy1", "yt", "xt")
    generator = DiTModelConfig().for_latent(model.latent)
    assert generator.content_planes == 2
    assert DiTModelConfig().for_latent(load_config(path).model.latent).content_planes is None
    generator.check_latent(model.latent, "shards/mine")
    other = replace(generator, content_planes=1)
    with pytest.raises(ConfigError, match=r"planes xy0, .* and model.content_planes=2"):
        other.check_latent(model.latent, "shards/mine")
    with pytest.raises(ConfigError, match=r"planes xy, yt, xt, .* model.content_planes=1"):
        generator.check_latent(other.latent, "shards/mine")


def test_the_name_of_a_model_tells_its_kind(path: str) -> None:
    assert isinstance(load_config(path).model, TokenizerModelConfig)
    named = load_config(path, ["model={name: dit, dim: 64, heads: 2}"]).model
    assert isinstance(named, DiTModelConfig)
    assert named.dim == 64


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.guidance=2", "a model of no classes takes only 1"),
        ("train.points=64", "train.points is 64; a generator sees no patches"),
        ("train.whole_frames=true", "train.whole_frames is True; a generator sees no patches"),
        ("perceptual={weight: 1}", "a generator sees no pixels"),
    ],
)
def test_a_generator_refuses_what_it_cannot_use(path: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(path, ["model={name: dit}", override])


def test_shards_are_a_path_or_a_weighted_list(path: str) -> None:
    assert [s.path for s in load_config(path, ["data.shards=a"]).data.shards] == ["a"]
    mixed = load_config(path, ["data.shards=[a, {path: 'pipe:cat {name}', weight: 2}]"])
    assert [(s.path, s.weight) for s in mixed.data.shards] == [("a", 1.0), ("pipe:cat {name}", 2.0)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=3", r"unknown key train.stepz \(did you mean train.steps\)"),
        ("optmi.lr=3", r"unknown key optmi \(did you mean optim\)"),
        ("train.steps=many", "train.steps is 'many'; it must be of type int"),
        ("train.steps=1.5", "train.steps is 1.5; it must be of type int"),
        ("train.steps=true", "train.steps is True; it must be of type int"),
        ("train.steps=0", "train.steps is 0; it must be between 1 and 99,999,999"),
        ("optim=3", "optim is 3; it must be a section of keys"),
        ("optim.lr.x=3", "did you mean|must be of type"),
        ("train.activation_checkpointing=1", "it must be one of false, true, selective"),
        ("optim.schedule=linear", "it must be one of constant, cosine, wsd"),
        ("optim.schedule=wsd", "optim.decay_steps is 0 and optim.schedule wsd"),
        ("optim.decay_steps=5", "optim.decay_steps is 5 and optim.schedule constant"),
        ("optim.betas=[0.9]", "it must be a list of 2 numbers"),
        ("optim.betas=[0.9,1.0]", "optim.betas is 1.0; it must be in .0, 1."),
        ("optim.min_lr=1", "it must be at most optim.lr"),
        ("model.heads=3", "model.dim is 1024, which model.heads 3 does not divide"),
        ("model.frames=100", "the video is 100 along t, which model.video_patch 8 does not divide"),
        ("model.plane_size=[32,16,12]", "model.plane_size is 12 along x, which model.plane_patch"),
        ("model.decoder_patch=[1,0,8]", r"model.decoder_patch.y is 0"),
        ("model.plane_channels=[8,0,8]", "model.plane_channels.yt is 0"),
        ("model.plane_channels=[8,8]", "it must be a list of 3 numbers"),
        ("model.plane_channels=x", "model.plane_channels is 'x'; it must be of type int"),
        ("model.linear_reach=1", "model.linear_reach is 1 and there is no linear path"),
        ("model.linear_reach=-1", "model.linear_reach is -1; it must be between 0 and 3"),
        ("optim.linear_path_rate=-1", "optim.linear_path_rate is -1.0; it must be at least 0"),
        ("data.shards=[]", "data.shards is empty"),
        ("data.shards=[{path: a, weight: 0}]", "data.shards.weight is 0.0; it must be in"),
        ("data.shards=[{path: a, wait: 1}]", "unknown key data.shards.wait"),
        ("data.shards=3", "data.shards has 3"),
        ("model.name=vae", "model.name is 'vae'; it must be one of coordtok, dit"),
        ("model={name: dit, patch: 3}", "model.plane_size is 32 along t, which model.patch 3"),
        ("model={name: dit, frames: 3}", "unknown key model.frames"),
        ("model={name: dit, label_dropout: 1}", "model.label_dropout is 1.0; it must be in"),
        ("tokenizer=exports/a", "only a generator has one"),
        ("perceptual.weight=1", "single patches make no picture"),
        ("perceptual.weight=-1", "perceptual.weight is -1.0; it must be at least 0"),
        ("train={steps: 1, global_batch: 1, whole_frames: true, points: 300}", "frame's 256"),
        ("flow.logit_std=0", "flow.logit_std is 0.0; it must be positive"),
        ("sampler.steps=0", "sampler.steps is 0; it must be between 1 and"),
        ("sampler.steps=100000000", "it must be between 1 and 10,000"),
        ("sampler.steps=1", "euler_maruyama takes at least 2"),
        ("sampler.last_step=1", "sampler.last_step is 1.0; it must be in .0, 1."),
        ("sampler.guidance_interval=[0.5,0.5]", "it must be an interval within"),
        ("sampler.tolerance=0", "sampler.tolerance is 0.0"),
        ("sampler.tolerance=.inf", "sampler.tolerance is inf"),
        ("sampler.guidance=.inf", "sampler.guidance is inf"),
        ("sampler.steps=100", "sampler is set, but a tokenizer has none"),
        ("flow.time=logit_normal", "flow is set, but a tokenizer has none"),
        ("ema.decay=1", "ema.decay is 1.0; it must be in .0, 1."),
        ("wandb.mode=maybe", "must be one of disabled, online, offline"),
        ("steps", "not of the form key.path=value"),
        ("seed=[", "the value is not valid YAML"),
        ("optim={lr: 1, lr: 2}", "the key 'lr' comes twice"),
        ("seed.x=1", "must be of type int"),
        ("run_dir=''", "run_dir is empty"),
    ],
)
def test_what_cannot_run_is_one_line(path: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path, [override])
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_an_unknown_preset_are_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no preset and no file is called 'tokenizer_x'"):
        load_config("tokenizer_x")
    bare = tmp_path / "bare.yaml"
    bare.write_text("run_dir: x\nmodel: {}\ndata: {shards: a}\ntrain: {steps: 1}\n")
    with pytest.raises(ConfigError, match=r"bare.yaml lacks train.global_batch$"):
        load_config(str(bare))


def test_all_wrong_keys_are_told_at_once_and_where_they_are(path: str, tmp_path: Path) -> None:
    bare = tmp_path / "bare.yaml"
    bare.write_text("rundir: x\nmodel: {dimm: 3}\ndata: {shards: [{weight: 1}]}\ntrain: {steps: 1}")
    with pytest.raises(ConfigError) as caught:
        load_config(str(bare), ["optim.lrr=1", "train.points=x"])
    assert str(caught.value) == (
        f"{bare} has unknown key rundir (did you mean run_dir); "
        f"{bare} has unknown key model.dimm (did you mean model.dim); "
        "the command line has unknown key optim.lrr (did you mean optim.lr); "
        f"{bare} lacks run_dir, data.shards.path, train.global_batch"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=.inf", "optim.lr is inf; it must be finite"),
        ("model.frames=1000000000", "model.frames is 1000000000; it must be between 1 and 65,536"),
        ("model.dim=1099511627776", "model.dim is 1099511627776; it must be between"),
        ("model.plane_layers=100000", "model.plane_layers is 100000; it must be between 0 and"),
        ("model.mlp_ratio=1e-9", "with model.dim 1024 it leaves no width"),
        ("train.sample_clips=1000000", "it must be between 1 and 256"),
        ("optim.eps=.nan", "optim.eps is nan; it must be finite"),
        ("optim.betas=[0.9,.nan]", "optim.betas is nan; it must be finite"),
        ("data.shards=[{path: a, weight: .inf}]", "data.shards.weight is inf; it must be finite"),
        (f"optim.lr={'9' * 400}", "optim.lr is 9999.*9...; it must be finite"),
        (
            f"train.steps={'9' * 400}",
            "train.steps is 9999.*9...; it must be a number of at most 64",
        ),
        (f"train.steps=0x{'f' * 5000}", "train.steps is a number of thousands of digits"),
        (f"train.steps={'9' * 5000}", "the value is not valid YAML"),
        ("optim.lr=!!int ''", "a value does not fit its !!tag"),
        ("model.name=[1]", r"model.name is \[1\]; it must be one of coordtok, dit"),
        ("model.name=null", "model.name is None; it must be one of coordtok, dit"),
        ('run_dir="\\0"', "a text has no NUL"),
        ('data.shards="\\ud800"', "a text has no NUL and no half characters"),
        ("optim.schedule=[cosine]", "it must be one of constant, cosine, wsd"),
        ("run_dir=2024-01-01", "must be of type str"),
    ],
)
def test_odd_values_are_one_line(path: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path, [override])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_damaged_sections_are_configs_or_one_error(path: str, seed: int) -> None:
    rng = random.Random(seed)
    good = to_dict(load_config("tokenizer_tiny"))
    for _ in range(100 if seed == 1 else 1_000):
        with contextlib.suppress(ConfigError):
            to_yaml(build(RunConfig, damaged_tree(good, rng)))
