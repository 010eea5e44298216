"""Random numbers for stacks of independent runs, where a seed means one thing.

Run ``r`` of a stack draws from a stream of its own, which its seed and the stream's name alone determine. A run
therefore sees the same random bits whether it is computed alone, among twenty others, on a CPU or on a GPU (numbers
that go through a logarithm or a cosine agree up to rounding), and the whole state of a stream is one counter.
``torch.Generator`` gives none of this for a stack: one generator per run costs a Python loop per draw, and its numbers
differ between devices.

The numbers are counter-based: the ``i``-th number of a stream is the SplitMix64 mixing function (Steele, Lea and Flood
2014, "Fast splittable pseudorandom number generators") of ``key + i * golden``, where ``key`` is a 64-bit hash of seed
and name.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The same 64 bits read as a signed integer, which is what torch's int64 holds."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own repeats the sign bit."""
    return (value >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """The mixing function, in place."""
    value.bitwise_xor_(_shift_right(value, 30)).mul_(_signed(_MIX_1))
    value.bitwise_xor_(_shift_right(value, 27)).mul_(_signed(_MIX_2))
    return value.bitwise_xor_(_shift_right(value, 31))


def distinct_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of a stack whose runs are to be independent, as plain integers.

    Raises:
        ValueError: there is no seed, or one is given twice.
        TypeError: a seed is no integer.
    """
    plain = tuple(operator.index(seed) for seed in seeds)
    if not plain:
        raise ValueError("a stack needs at least one run: give one seed or more")
    repeated = sorted({seed for seed in plain if plain.count(seed) > 1})
    if repeated:
        names = ", ".join(map(str, repeated))
        raise ValueError(f"runs with the same seed would be the same run: give each seed once, but {names} repeats")
    return plain


class RandomStreams:
    """One random stream per run of a stack.

    Args:
        seeds: seeds ``[R]``, any integers; runs with the same seed draw the same numbers.
        name: what the numbers are for; streams of different names are independent.
        device: where the numbers are made.

    Raises:
        TypeError: a seed is no integer.
    """

    def __init__(self, seeds: Sequence[int], name: str, device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(operator.index(seed) for seed in seeds)
        self.name = name
        keys = [
            int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little", signed=True)
            for seed in self.seeds
        ]
        self._keys = torch.tensor(keys, dtype=torch.int64, device=device)
        self.counter = 0
        """How many numbers each run has drawn so far: the whole state."""

    @property
    def device(self) -> torch.device:
        """Where the numbers are made."""
        return self._keys.device

    def _bits(self, shape: Sequence[int]) -> Tensor:
        count = math.prod(shape)
        positions = torch.arange(self.counter + 1, self.counter + count + 1, device=self.device)
        self.counter += count
        return _mix(self._keys[:, None] + positions * _signed(_GOLDEN)).view(len(self.seeds), *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Draw float32 ``[R, *shape]``, uniform in [0, 1), on a grid of 2^-24."""
        return _shift_right(self._bits(shape), 40).to(torch.float32).mul_(2.0**-24)

    def normal(self, *shape: int) -> Tensor:
        """Draw float32 ``[R, *shape]`` from the standard normal distribution (Box and Muller 1958)."""
        uniform = self.uniform(2, *shape)
        radius = torch.log1p(-uniform[:, 0]).mul_(-2.0).sqrt_()
        return torch.cos(2.0 * math.pi * uniform[:, 1]).mul_(radius)

    def gumbel(self, *shape: int) -> Tensor:
        """Draw float32 ``[R, *shape]`` from the standard Gumbel distribution."""
        uniform = self.uniform(*shape).clamp_(2.0**-25, 1.0 - 2.0**-24)
        return -torch.log(-torch.log(uniform))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draw int64 ``[R, *shape]``, uniform in ``0 ... high - 1``.

        Raises:
            ValueError: ``high`` is not in ``1 ... 2^30``.
        """
        if not 1 <= high <= 1 << 30:
            raise ValueError(f"integers are drawn below a number from 1 to 2^30, not {high}")
        # 33 random bits times high, shifted back: a bias below high / 2^33, no division, and no overflow of 63 bits.
        return (_shift_right(self._bits(shape), 31) * high) >> 33
