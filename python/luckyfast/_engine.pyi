"""The structure of delimited text, found with the widest instructions at hand (compiled; see engine/)."""

import numpy as np
from numpy.typing import NDArray

SLACK: int
UNCLOSED: int

def kernel_name(level: int = -1) -> str: ...
def find_boundary(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    at_eof: bool,
    first_unclosed: bool,
    delimiter: int,
    quote: int,
    level: int = -1,
) -> int: ...
def scan(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    first_unclosed: bool,
    delimiter: int,
    quote: int,
    separators: NDArray[np.uint32],
    row_stops: NDArray[np.uint32],
    level: int = -1,
) -> tuple[int, int, bool]: ...
def scan_until(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    border: int,
    at_eof: bool,
    delimiter: int,
    quote: int,
    separators: NDArray[np.uint32],
    row_stops: NDArray[np.uint32],
    level: int = -1,
) -> tuple[int, int, bool, int]: ...
