import json
from pathlib import Path

import pytest
import torch
from torch import nn

from coordtok import distributed
from coordtok.config.load import load_config
from coordtok.errors import ConfigError
from coordtok.train.engine import build_engine, check_compiled, load_sharding, rank_batch
from tests.support.ranks import ROOT, call

JSONS = sorted((ROOT / "ds_configs").glob("*.json"))


def run(*overrides: str):
    return load_config("quickstart", ["train.global_batch=24", *overrides])


@pytest.mark.parametrize("path", JSONS, ids=lambda path: path.stem)
def test_shipped_jsons_hold_no_fact_of_the_yaml(path: Path) -> None:
    sharding = load_sharding(str(path), run("train.micro_batch=3"), world_size=4)
    assert sharding.config["train_batch_size"] == 24
    assert sharding.config["train_micro_batch_size_per_gpu"] == 3
    assert sharding.config["gradient_accumulation_steps"] == 2
    assert sharding.config["gradient_clipping"] == 1.0
    assert sharding.stage == int(path.stem[4])
    assert sharding.precision == "float32", "that of a CPU"
    assert sharding.is_open == ("fp32" not in path.stem)
    assert sharding.resuming("bfloat16").precision == (
        "bfloat16" if sharding.is_open else "float32"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_batch_size": 8}, "train_batch_size is 8 in .* its home is train.global_batch"),
        ({"gradient_clipping": 0.5}, "gradient_clipping is 0.5 .* its home is optim.grad_clip"),
        ({"optimizer": {"type": "Adam"}}, "optimizer in .* has its home in optim"),
        ({"scheduler": {}}, "scheduler in .* has its home in optim.schedule"),
        ({"zero_optimization": {"stage": 0}}, "stage is 0 .* must be 1, 2 or 3"),
        ({"zero_optimization": {}}, "stage is None"),
        ({"fp16": {"enabled": True}}, "use bf16 or fp32"),
        ({"bf16": True}, "bf16 is True in .*; it must be a JSON object"),
        ({"bf16": {"enabled": "no"}}, "bf16.enabled is 'no' .* one of true, false, .auto."),
        ({"bf16": {"enabled": 1}}, "bf16.enabled is 1 "),
        ({"data_types": 3}, "data_types is 3 in .*; it must be a JSON object"),
        ({"data_types": {"grad_accum_dtype": []}}, r"data_types.grad_accum_dtype is \[\] "),
        ({"communication_data_type": "FP32"}, "communication_data_type is 'FP32' .* .fp32., .bf16"),
        ({"zero_optimization": 3}, "zero_optimization is 3"),
        ({"bf61": {"enabled": True}}, "unknown key bf61 in .*; did you mean bf16"),
        (
            {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}},
            "offload_optimizer.device is nvme in .*; choose cpu",
        ),
        ({"wall_clock_breakdown": "auto"}, 'wall_clock_breakdown is "auto"'),
        (
            {"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}},
            'zero_optimization.reduce_bucket_size is "auto"',
        ),
    ],
)
def test_a_fact_has_one_home(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3}, **change}))
    with pytest.raises(ConfigError, match=message) as caught:
        load_sharding(str(path), run(), world_size=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "JSON object")])
def test_what_is_not_a_json_object_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_sharding(str(path), run(), world_size=1)
    with pytest.raises(ConfigError, match="cannot read"):
        load_sharding(str(tmp_path / "none.json"), run(), world_size=1)


def test_the_batch_is_shared_by_all_ranks_or_refused() -> None:
    assert rank_batch(run(), 8) == 3
    assert rank_batch(run("train.micro_batch=2"), 4) == 2
    with pytest.raises(ConfigError, match="24 is not divisible by 5 ranks"):
        rank_batch(run(), 5)
    with pytest.raises(ConfigError, match=r"4 ranks x train.micro_batch 4"):
        rank_batch(run("train.micro_batch=4"), 4)


def test_compiled_blocks_under_zero_3_are_refused_on_a_gpu() -> None:
    compiled = run("train.compile=true")
    for stage in (1, 2, 3):
        check_compiled(compiled, load_sharding(f"zero{stage}", compiled, 1), torch.device("cpu"))
    for stage in (1, 2):
        check_compiled(compiled, load_sharding(f"zero{stage}", compiled, 1), torch.device("cuda"))
    with pytest.raises(ConfigError, match="zero1 or zero2"):
        check_compiled(compiled, load_sharding("zero3", compiled, 1), torch.device("cuda"))


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
def test_gradients_of_bf16_are_accumulated_in_fp32(name: str) -> None:
    call(check_accumulation, name, ranks=2)


PASSES = 16


def check_accumulation(name: str) -> None:
    """1 + 15 x 2^-9: each is lost beside 1 in bfloat16."""
    distributed.setup()
    batch = [f"train.global_batch={2 * PASSES}", "train.micro_batch=1"]
    run = load_config("quickstart", [*batch, "optim.name=adamw", "optim.grad_clip=0"])
    sharding = load_sharding(name, run, 2).resuming("bfloat16")
    assert load_sharding(name, run, 2 * PASSES).config["data_types"]["grad_accum_dtype"] is None
    engine, _ = build_engine(lambda: nn.Linear(1, 1, bias=False), run, sharding)
    for step in range(PASSES):
        value = 1.0 if step == 0 else 2**-9
        inputs = torch.full((1, 1), value * PASSES, dtype=torch.bfloat16)
        engine.backward(engine(inputs).sum())
        engine.step()
    assert float(engine.get_global_grad_norm()) == 1 + (PASSES - 1) * 2**-9
