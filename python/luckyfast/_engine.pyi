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
def project_json(
    data: NDArray[np.uint8],
    start: int,
    line_ends: NDArray[np.uint32],
    line_stops: NDArray[np.uint32],
    first: int,
    n_lines: int,
    path_text: NDArray[np.uint8],
    path_stops: NDArray[np.uint32],
    out: NDArray[np.uint8],
    separators: NDArray[np.uint32],
    row_stops: NDArray[np.uint32],
) -> tuple[int, int]: ...
