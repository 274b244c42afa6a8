"""What KEY.json says of a sample. Its text comes from strangers, so nothing in it is relied on."""

import json
from collections.abc import Mapping
from typing import Any

from coordtok.data.member import StoredSample, UnreadableSample

NO_LABEL = -1


def read_info(sample: StoredSample) -> dict[str, Any]:
    """The contents of a sample's KEY.json; nothing where it has none.

    Raises:
        UnreadableSample: it is damaged.
    """
    if "json" not in sample.entry.files:
        return {}
    try:
        info = json.loads(sample.read("json"))
    except (ValueError, RecursionError) as error:
        raise UnreadableSample(f"its .json is damaged ({error})") from None
    if not isinstance(info, dict):
        raise UnreadableSample(f"its .json is damaged (a {type(info).__name__}, no names)")
    return info


def label_of(info: Mapping[str, Any]) -> int:
    """The class that a KEY.json names, or `NO_LABEL`."""
    label = info.get("class")
    return label if type(label) is int and label >= 0 else NO_LABEL
