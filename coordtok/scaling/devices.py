"""What accelerators can do, from their makers' data sheets (dense matrix rates, no sparsity)."""

from dataclasses import dataclass
from typing import Literal

from coordtok.errors import ConfigError


@dataclass(frozen=True)
class Device:
    """One accelerator and its links."""

    name: str
    bf16: float
    """Operations of matrix products a second, bfloat16 accumulated in float32."""
    fp32: float
    """Likewise in float32; on GPUs with TF32 that."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second to and from memory."""
    link: float
    """Bytes a second that a device sends to others of its node, one direction."""
    watts: float
    """Of the device alone at full load."""
    source: str
    product_share: float = 0.7
    """Of the rate, what large matrix products reach."""
    attention_share: float = 0.45
    """Of the rate, what attention reaches."""
    launch: float = 4e-6
    """Seconds from the start of one kernel to that of the next, if neither has anything to do."""
    python: float = 1.2e-5
    """Seconds of the host to launch a kernel of an eager step; on a CPU beside its own work."""

    @property
    def kind(self) -> Literal["cpu", "cuda"]:
        """As torch calls it."""
        return "cpu" if self.name.startswith("cpu") else "cuda"


_TERA, _GIB = 1e12, 2.0**30
DEVICES = {
    device.name: device
    for device in (
        Device(
            "rtx-4090", 165.2 * _TERA, 82.6 * _TERA, 24 * _GIB, 1008e9, 32e9, 450,
            "NVIDIA Ada GPU architecture whitepaper, table 2; PCIe 4.0 x16",
        ),
        Device(
            "a100-80g", 312 * _TERA, 156 * _TERA, 80 * _GIB, 2039e9, 300e9, 400,
            "NVIDIA A100 80GB SXM data sheet; NVLink 3",
        ),
        Device(
            "h100-80g", 989.4 * _TERA, 494.7 * _TERA, 80 * _GIB, 3350e9, 450e9, 700,
            "NVIDIA H100 SXM data sheet; NVLink 4",
        ),
        Device(
            "h200", 989.4 * _TERA, 494.7 * _TERA, 141e9, 4800e9, 450e9, 700,
            "NVIDIA H200 SXM data sheet; NVLink 4",
        ),
        Device(
            "b200", 2250 * _TERA, 1125 * _TERA, 180e9, 8000e9, 900e9, 1000,
            "NVIDIA HGX B200 data sheet; NVLink 5",
        ),
        Device(
            "mi300x", 1307.4 * _TERA, 653.7 * _TERA, 192 * _GIB, 5300e9, 448e9, 750,
            "AMD Instinct MI300X data sheet; Infinity Fabric to seven others", product_share=0.5,
        ),
        Device(
            "cpu-2", 0.1 * _TERA, 0.24 * _TERA, 24 * _GIB, 12e9, 5e9, 60,
            "measured: two Intel Xeon cores with AVX-512 and no AMX, 132 of 180 to 270 GFLOP/s in "
            "training (docs/performance.md)", launch=0.0,
            python=2e-5,
        ),
    )
}  # fmt: skip


def device_named(name: str) -> Device:
    """
    Raises:
        ConfigError: not in the catalogue.
    """
    if name not in DEVICES:
        raise ConfigError(f"--device is {name}; choose one of {', '.join(DEVICES)}")
    return DEVICES[name]


def device_called(gpu: str) -> Device | None:
    """The one whose driver calls it that, such as "NVIDIA H100 80GB HBM3"; None of others."""
    for mark, name in (("4090", "rtx-4090"), ("A100", "a100-80g"), ("H100 80GB HBM3", "h100-80g"),
                       ("H200", "h200"), ("B200", "b200"), ("MI300X", "mi300x")):  # fmt: skip
        if mark in gpu:
            return DEVICES[name]
    return None
