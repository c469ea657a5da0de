"""Hash single values, so that a save finds what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fulgurite.exact_resume.inspection.read_only import mapped_array, modified, place_in_file, read_only_sign
from fulgurite.exact_resume.values.generator_states import SOURCES, generator_state, state_bytes
from fulgurite.exact_resume.values.kinds import ATOMS, class_name
from fulgurite.exact_resume.values.leaves import STREAMS, leaf_to_plain, stream_state
from fulgurite.exact_resume.values.subclasses import base_of, is_subclass

MAX_HASHED_BYTES = 8 * 2**20  # what is larger is too large to be saved, and is read as a whole once an epoch only
NUM_COLUMNS = 512  # of the table in which their words are summed
# layouts of sparse tensors, and the methods that return their indices
COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}
NUM_SAMPLED = 4096  # elements of a larger tensor or array that are read at each save


@dataclass(frozen=True, eq=False)
class LargeSign:
    """The sign of a large tensor: of a sample, and of all of it where it was read as a whole."""

    sample: Any
    total: int | None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LargeSign):
            return False
        return self.sample == other.sample and (None in (self.total, other.total) or self.total == other.total)

    def __hash__(self) -> int:
        return hash(self.sample)


def leaf_sign(value: Any, *, thorough: bool) -> Any:
    """Return something that differs after a leaf changed; thorough: read large ones as a whole."""
    kind: Any = type(value)
    if is_subclass(kind):
        attributes = {} if isinstance(value, np.ma.MaskedArray) else getattr(value, "__dict__", {})
        mask = leaf_sign(value.mask, thorough=thorough) if isinstance(value, np.ma.MaskedArray) else None
        base = base_of(value)
        sign = atom_sign(base) if type(base) in ATOMS else leaf_sign(base, thorough=thorough)
        return class_name(kind), sign, mask, repr(attributes)
    if isinstance(value, torch.Tensor):
        # a sample differs between two files
        fixed = read_only_sign(value, lambda: _tensor_sign(value.detach(), thorough=False, sampled=True))
        return (*(fixed or _tensor_sign(value.detach(), thorough=thorough)), value.is_leaf and value.requires_grad)
    if isinstance(value, np.ndarray):
        return _array_sign(value, thorough=thorough)
    if isinstance(value, STREAMS):
        return type(value).__name__, hash(stream_state(value))
    if isinstance(value, SOURCES):
        return digest(state_bytes(generator_state(value)))
    return type(value).__name__, repr(leaf_to_plain(value))


def atom_sign(value: Any) -> Any:
    """Return something that differs after an atom changed, without a long text."""
    if isinstance(value, (str, bytes)) and len(value) > 64:
        return type(value).__name__, digest(value.encode(errors="replace") if isinstance(value, str) else value)
    return type(value).__name__, repr(value)


def proxy_content(proxy: Any) -> Any:
    """Return what a proxy of a `multiprocessing.Manager` stands for; None for the manager, or where it has ended."""
    try:
        return repr(proxy._getvalue())
    except (AttributeError, OSError, EOFError):
        return None


def digest(content: Any) -> int:
    """Return a hash of bytes, for comparisons in this process only: five times as fast as one for files."""
    return hash(bytes(content))


def _tensor_sign(value: torch.Tensor, *, thorough: bool, sampled: bool = False) -> tuple[Any, ...]:
    head = (str(value.dtype), tuple(value.shape), value.device.type)
    if value.layout is torch.sparse_coo:
        return *head, *(_tensor_sign(part, thorough=thorough) for part in (value._indices(), value._values()))
    if value.layout in COMPRESSED:
        names = COMPRESSED[value.layout]
        return *head, *(_tensor_sign(getattr(value, name)(), thorough=thorough) for name in (*names, "values"))
    if value.is_quantized:
        return *head, *(_tensor_sign(part, thorough=thorough) for part in (value.int_repr(), value.dequantize()))
    if value.layout is not torch.strided or value.is_meta:
        return head
    if value.nbytes <= MAX_HASHED_BYTES and not sampled:
        return *head, digest(_bytes_of(value))
    positions = torch.linspace(0, value.numel() - 1, NUM_SAMPLED, dtype=torch.float64).long().to(value.device)
    sample = digest(_bytes_of(value.reshape(-1)[positions])), 0 if value.is_inference() else value._version
    return *head, LargeSign(sample, _sums_of_words(value.reshape(-1)) if thorough else None)


def _bytes_of(value: torch.Tensor) -> Any:
    value = value.cpu().resolve_conj().resolve_neg().contiguous()
    return value.reshape(-1).view(torch.uint8).numpy() if value.numel() else b""


def _sums_of_words(flat: torch.Tensor) -> int:
    """Return a hash of sums along the rows and the columns of a table, which differs after two words swapped."""
    flat = flat.contiguous().view(torch.uint8)
    end = len(flat) // (8 * NUM_COLUMNS) * (8 * NUM_COLUMNS)
    words = flat[:end].view(torch.int64).view(-1, NUM_COLUMNS)
    return hash(tuple(digest(_bytes_of(part)) for part in (words.sum(0), words.sum(1), flat[end:])))


def _array_sign(value: np.ndarray[Any, Any], *, thorough: bool) -> tuple[Any, ...]:
    head = (value.dtype.str, value.shape)
    mapped = mapped_array(value)
    if mapped is not None and not mapped.flags.writeable:
        return *head, *place_in_file(value, mapped)  # no code can write to it through the array
    if value.nbytes <= MAX_HASHED_BYTES:
        return *head, digest(np.ascontiguousarray(value).reshape(-1).view(np.uint8)) if value.size else b""
    sample = digest(np.ascontiguousarray(value.flat[:: value.size // NUM_SAMPLED]).view(np.uint8))
    if mapped is not None:  # the time of its file shows a write without reading all of it
        return *head, LargeSign(sample, None), modified(mapped.filename)
    whole = thorough and value.flags.c_contiguous
    return *head, LargeSign(sample, _sums_of_words(torch.from_numpy(_words(value))) if whole else None)


def _words(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    flat = value.reshape(-1).view(np.uint8)
    return flat if flat.flags.writeable else flat.copy()
