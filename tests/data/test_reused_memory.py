import numpy as np
import torch

from coordtok.data.reused_memory import ReusedMemory


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_nothing_looks_at_it():
    memory = ReusedMemory()
    first = memory.empty((2, 3), np.uint8)
    place = address(first)
    second = memory.empty((2, 3), np.uint8)
    assert address(second) != place
    first[:] = 7
    del first
    third = memory.empty((6,), np.uint8)
    assert address(third) == place
    assert third.tolist() == [7] * 6
    assert third.flags.writeable
    assert memory.empty((3, 2), np.int64).shape == (3, 2)
    assert memory.empty((0, 3), np.uint8).size == 0


def test_views_and_tensors_keep_it():
    memory = ReusedMemory()
    array = memory.empty((4, 8), np.uint8)
    place = address(array)
    holders = [array[1:][0], torch.from_numpy(array)[None][:, 2:]]
    del array
    while holders:
        assert address(memory.empty((4, 8), np.uint8)) != place
        holders.pop()
    assert address(memory.empty((4, 8), np.uint8)) == place


def test_little_waits_for_its_next_use():
    memory = ReusedMemory()
    arrays = [memory.empty((16,), np.uint8) for _ in range(10)]
    places = {address(array) for array in arrays}
    del arrays
    again = [memory.empty((16,), np.uint8) for _ in range(4)]
    assert {address(array) for array in again} <= places
    assert not any(memory._spare.values())
