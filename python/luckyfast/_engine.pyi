"""What needs the widest instructions at hand: the structure of delimited text, and networks (compiled; see engine/)."""

from typing import Any

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

_Floats = NDArray[np.float32]
_Ids = NDArray[np.int64]

def product(
    a: _Floats,
    b: _Floats,
    c: _Floats,
    a_transposed: bool = False,
    b_transposed: bool = False,
    bias: _Floats | None = None,
    adds: bool = False,
    n_threads: int = 1,
    level: int = -1,
) -> None: ...
def lstm_forward(
    gates: _Floats, cells: _Floats, outputs: _Floats, weight: _Floats, n_threads: int = 1, level: int = -1
) -> bool: ...
def lstm_backward(
    gates: _Floats,
    cells: _Floats,
    grad_outputs: _Floats,
    grad_h: _Floats,
    grad_c: _Floats,
    weight: _Floats,
    wants_grad_h: bool = True,
    n_threads: int = 1,
    level: int = -1,
) -> None: ...
def set_loss(
    logits: _Floats,
    label_start: _Ids,
    labels: _Ids,
    weights: _Floats,
    scale: float,
    grad: _Floats,
    n_threads: int = 1,
    smoothing: _Floats | None = None,
    level: int = -1,
) -> float: ...
def drop(values: _Floats, out: _Floats, share: float, seed: int, level: int = -1) -> None: ...
def head_loss(*arrays_and_settings: Any, level: int = -1) -> float: ...
def square_sum(values: _Floats, level: int = -1) -> float: ...
def adam_step(*arrays_and_settings: _Floats | float, level: int = -1) -> None: ...
def sum_bags(start: _Ids, actions: _Ids, table: _Floats, out: _Floats, n_threads: int = 1, level: int = -1) -> None: ...
def spread_bags(
    start: _Ids, actions: _Ids, grad: _Floats, grad_table: _Floats, n_threads: int = 1, level: int = -1
) -> None: ...
def count_pairs(
    first: _Ids,
    row_start: _Ids,
    moments: _Ids,
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    n_actions: int,
    pair_start: _Ids,
) -> None: ...
def habit_features(
    first: _Ids,
    row_start: _Ids,
    moments: _Ids,
    pair_start: _Ids,
    visit_time: _Ids,
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    contexts: NDArray[np.int32],
    prior: NDArray[np.float64],
    half_lives: NDArray[np.float64],
    spans: NDArray[np.float64],
    time_scale: float,
    n_context_values: int,
    pair_action: _Ids,
    features: _Floats,
    n_threads: int = 1,
    level: int = -1,
) -> None: ...
def habit_scores(*arrays_and_threads: _Floats | _Ids | int, level: int = -1) -> None: ...
def habit_grads(*arrays_and_threads: _Floats | _Ids | int, level: int = -1) -> None: ...
