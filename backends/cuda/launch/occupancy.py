"""How many threads of a kernel run at a time: the sizes of blocks with which most do.

Registers and memory are given to whole blocks, so large blocks may leave a part of a processor unused. A kernel whose
threads know nothing of their block is launched in blocks of the size that leaves least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dflow.backends.cuda.plan import Launch

if TYPE_CHECKING:
    from dflow.backends.cuda.launch.driver import Device

LEAST = 64  # threads of a block
WARP = 32


def block_size(device: Device, function: Any, launch: Launch) -> int:
    """The threads of a block with which most threads of a processor have work; the larger one of equal ones.

    That of the plan, where the kernel has no choice or the driver no answer.
    """
    best, most, size = launch.block, 0, launch.block
    while launch.is_divisible and size >= LEAST:
        code, blocks = device.cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, size, launch.shared)
        if code:
            return launch.block
        if blocks * size > most:
            best, most = size, blocks * size
        size //= 2
    return best


# By processor: warps, blocks, and bytes of the memory of blocks that one multiprocessor has. ("CUDA C++ Programming
# Guide", technical specifications per compute capability.)
LIMITS = {
    "sm_80": (64, 32, 164 << 10),
    "sm_86": (48, 16, 100 << 10),
    "sm_89": (48, 24, 100 << 10),
    "sm_90": (64, 32, 228 << 10),
    "sm_100": (64, 32, 228 << 10),
    "sm_120": (48, 24, 100 << 10),
}
REGISTERS = 1 << 16  # of a multiprocessor
OF_A_WARP = 256  # registers are given to a warp in such pieces
RESERVED = 1 << 10  # bytes of each block that the driver needs


def occupancy(target: str, threads: int, registers: int, shared: int) -> float:
    """The part of the warps that a multiprocessor has room for which run at a time, with blocks of ``threads``."""
    warps, most_blocks, memory = LIMITS[target]
    mine = -(-threads // WARP)
    of_a_warp = -(-max(registers, 1) * WARP // OF_A_WARP) * OF_A_WARP
    blocks = min(most_blocks, warps // mine, REGISTERS // of_a_warp // mine, memory // (shared + RESERVED))
    return blocks * mine / warps
