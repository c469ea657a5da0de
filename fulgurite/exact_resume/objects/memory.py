"""Find tensors and arrays that share memory, and make views of a block of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

MAX_BLOCK_BYTES = 8 * 2**20  # that are allocated for a view of memory that no other object holds


def memory_of(value: Any) -> int:
    """Return the address of the memory of a tensor or an array, or 0."""
    root = _root(value)
    if isinstance(root, torch.Tensor):
        storage = _storage(root)
        return 0 if storage is None else storage.data_ptr()
    return int(root.__array_interface__["data"][0]) if root is not None and root.size else 0


def layout_of(value: Any, shared: str) -> list[Any] | str:
    """Return where a tensor or an array is in a block of memory: what shares it, offset, strides, and its bytes.

    `shared` is the path of the first tensor or array in the block; empty: this one.

    Returns:
        Only `shared` where the block is the value itself, or where `view_of` could not use more.
    """
    block, root, is_tensor = block_of(value), _root(value), isinstance(value, torch.Tensor)
    if block is None or (not shared and block.nbytes() > MAX_BLOCK_BYTES):
        return shared
    is_plain = value.is_contiguous() if is_tensor else value.flags.c_contiguous
    if not shared and is_plain and block.nbytes() == value.nbytes:
        return shared
    if is_tensor:
        return [shared, value.storage_offset(), list(value.stride()), block.nbytes()]
    start = block.data_ptr() if isinstance(root, torch.Tensor) else root.__array_interface__["data"][0]
    return [shared, value.__array_interface__["data"][0] - start, list(value.strides), block.nbytes()]


def block_of(value: Any) -> torch.UntypedStorage | None:
    """Return the whole memory of a tensor or an array, or None."""
    root = _root(value)
    if isinstance(root, torch.Tensor):
        return _storage(root)
    if root is None or not root.flags.writeable or root.dtype.hasobject or not root.flags.forc or not root.size:
        return None
    return torch.from_numpy(root.ravel(order="K").view(np.uint8)).untyped_storage()


def view_of(holder: Any, layout: list[Any], plain: list[Any], device: torch.device) -> Any:
    """Return a tensor or an array in a block of memory, or None.

    Args:
        holder: What is in the block too; None: the block is new.
        layout: What `layout_of` returned.
        plain: The converted tensor or array.
        device: The device of tensors of an accelerator.
    """
    _, offset, strides, num_bytes = layout
    kind, content = plain
    is_new = holder is None
    if is_new:
        is_on_cpu = kind == "array" or content[1] == "cpu"
        holder = torch.zeros(num_bytes, dtype=torch.uint8, device="cpu" if is_on_cpu else device)
    block = block_of(holder)
    if block is None or block.nbytes() != num_bytes or (kind == "array" and block.device.type != "cpu"):
        return None
    if kind == "tensor":
        empty = torch.empty(0, dtype=content[0].dtype, device=block.device)
        view: Any = empty.set_(block, offset, content[0].shape, strides)
    else:
        whole = torch.empty(0, dtype=torch.uint8).set_(block, 0, (num_bytes,), (1,)).numpy()
        view = np.ndarray(content[1], content[0], whole, offset, strides)
    if is_new and kind == "tensor" and 0 in strides:  # of an expanded one, the elements that differ in their place
        once = tuple(slice(None if stride else 1) for stride in strides)
        view[once] = content[0][once].to(block.device)
    return view


def _storage(value: torch.Tensor) -> torch.UntypedStorage | None:
    """Return the memory of a tensor; None for a DTensor, whose shards have it."""
    storage = value.untyped_storage()
    try:
        storage.data_ptr()
    except RuntimeError:
        return None
    return storage


def _root(value: Any) -> Any:
    """Return the array or the tensor whose memory a value uses; None where it has none."""
    while isinstance(value, np.ndarray) and isinstance(value.base, (np.ndarray, torch.Tensor)):
        value = value.base
    if isinstance(value, torch.Tensor):
        has_memory = value.layout is torch.strided and not value.is_meta and not is_lazy(value)
        return value if has_memory else None
    return value if isinstance(value, np.ndarray) else None
