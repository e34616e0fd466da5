"""Sparse tensors with shared values as bytes: relative positions and codebook indices under Huffman codes.

The storage format of Deep Compression (Han et al., ICLR 2016, arXiv:1510.00149, sections 2 and 4): the gap from one
kept weight to the next, with a filler where a gap does not fit, and the number of its shared value.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

FILLER = 0
"""The symbol of a position that only bridges a gap; shared values count from 1."""


def encode_layer(assignment: Tensor, codebook: Tensor, *, gap_bits: int) -> bytes:
    """One layer's weights as bytes.

    Args:
        assignment: Of any shape, int: 0 where the weight is zero, i where it is `codebook[i - 1]`.
        codebook: (shared values,) float32.
        gap_bits: A stored gap is less than 2 ** gap_bits; the paper uses 8 for convolutions and 5 for linear layers.
    """
    flat = assignment.flatten().cpu().numpy()
    positions = np.flatnonzero(flat)
    gaps = np.diff(positions, prepend=-1) - 1
    longest = 2**gap_bits - 1
    # A gap of g zeros becomes g // 2**bits fillers, each standing for `longest` zeros and a zero of its own.
    fillers = gaps // (longest + 1)
    ends = np.cumsum(fillers + 1) - 1
    stored_gaps = np.full(int(ends[-1]) + 1 if len(ends) else 0, longest)
    symbols = np.full(len(stored_gaps), FILLER)
    stored_gaps[ends], symbols[ends] = gaps - fillers * (longest + 1), flat[positions]
    parts = [codebook.detach().float().cpu().numpy().tobytes(), huffman(stored_gaps), huffman(symbols)]
    shape = struct.pack(f"<B{assignment.dim()}I", assignment.dim(), *assignment.shape)
    return shape + b"".join(struct.pack("<I", len(part)) + part for part in parts)


def decode_layer(data: bytes) -> Tensor:
    """The weights that `encode_layer` stored, bit for bit."""
    shape = struct.unpack_from(f"<{data[0]}I", data, 1)
    codebook, gaps, symbols = _parts(data, 1 + 4 * data[0])
    values = np.concatenate([np.zeros(1, np.float32), np.frombuffer(codebook, np.float32)])
    flat = np.zeros(int(np.prod(shape)), np.float32)
    positions = np.cumsum(unhuffman(gaps) + 1) - 1
    flat[positions] = values[unhuffman(symbols)]
    return torch.from_numpy(flat).reshape(shape)


def _parts(data: bytes, offset: int) -> Iterator[bytes]:
    while offset < len(data):
        (size,) = struct.unpack_from("<I", data, offset)
        yield data[offset + 4 : offset + 4 + size]
        offset += 4 + size


def huffman(symbols: np.ndarray) -> bytes:
    """Symbols (non-negative integers below 65536) as a canonical Huffman code, its table included."""
    values, inverse, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    lengths = code_lengths(counts)
    order = np.lexsort((values, lengths))
    codes = _canonical_codes(lengths[order])
    table = struct.pack("<II", len(symbols), len(values))
    table += values[order].astype("<u2").tobytes() + lengths[order].astype("<u1").tobytes()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    rank_of_symbol = rank[inverse]
    sizes = lengths[order][rank_of_symbol]
    # Bit j of a symbol's code, from the highest on, lies j places behind the sum of the sizes before it.
    starts = np.cumsum(sizes) - sizes
    place = np.arange(int(sizes.sum())) - np.repeat(starts, sizes)
    shift = np.repeat(sizes, sizes) - 1 - place
    bits = (np.repeat(codes[rank_of_symbol], sizes) >> shift) & 1
    return table + np.packbits(bits.astype(np.uint8)).tobytes()


def unhuffman(data: bytes) -> np.ndarray:
    """The symbols that `huffman` stored."""
    total, distinct = struct.unpack_from("<II", data)
    values = np.frombuffer(data, "<u2", distinct, 8)
    lengths = np.frombuffer(data, "<u1", distinct, 8 + 2 * distinct).astype(np.int64)
    book = {
        (int(size), int(code)): int(v) for v, size, code in zip(values, lengths, _canonical_codes(lengths), strict=True)
    }
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=8 + 3 * distinct))
    symbols, code, size = [], 0, 0
    for bit in bits.tolist():
        if len(symbols) == total:
            break
        code, size = code << 1 | bit, size + 1
        if (size, code) in book:
            symbols.append(book[size, code])
            code, size = 0, 0
    return np.array(symbols, np.int64)


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Length in bits of each symbol's Huffman code; a single symbol takes one bit."""
    if len(counts) == 1:
        return np.ones(1, np.int64)
    lengths = np.zeros(len(counts), np.int64)
    heap = [(int(count), number, [number]) for number, count in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        members = first[2] + second[2]
        lengths[members] += 1
        heapq.heappush(heap, (first[0] + second[0], first[1], members))
    return lengths


def _canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """Codes of ascending lengths: each is the one before plus one, shifted to its own length."""
    codes = np.zeros(len(lengths), np.int64)
    for number in range(1, len(lengths)):
        codes[number] = (codes[number - 1] + 1) << int(lengths[number] - lengths[number - 1])
    return codes
