"""One worker: blocks in, accepted rows in its store, rejected rows out."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast import _engine
from luckyfast.errors import BudgetError
from luckyfast.ingestion.disk import StoreSize
from luckyfast.ingestion.duplicates import SAMPLE_ROWS, thin_sample
from luckyfast.ingestion.plan import Rules
from luckyfast.ingestion.rejects import REASONS, BlockReport, Rejects
from luckyfast.ingestion.rules import kernel_conditions
from luckyfast.kernels import parse as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.ingestion.plan import Feature, FilePlan, IngestPlan, Lookup
    from luckyfast.ingestion.stream import Block

__all__ = ["ROLES", "LookupTable", "Parser", "make_layout"]

ROLES = ("customer", "time", "action", "visit")
_TIME_KINDS = ("iso", "epoch", "ymd", "dmy", "mdy", "order", "named", "gaps")
_REJECTS_AT_ONCE = 4096
_FIRST_NAMES = 1 << 10
_LEAST_FRAGMENTS, _MOST_FIRST_FRAGMENTS = 1 << 11, 1 << 16
_PER_FRAGMENT = ("customer", "n_actions", "time", "key")
_GROWING = {
    "customer": np.uint32,
    "n_actions": np.uint32,
    "time": np.int64,
    "key": np.uint64,
    "actions": np.uint32,
    "rows": np.uint64,
}
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)  # named since Python 3.12
_HUGE_PAGE = 1 << 21
_LEAST_HUGE_STORE = 1 << 28
_NO_RULES = Rules()


def _make_names(n_names: int = _FIRST_NAMES, n_bytes: int = 0) -> kernel.Names:
    size = 1 << max(4, (2 * n_names + 1).bit_length())
    return kernel.Names(
        np.zeros(size, np.uint64),
        np.zeros(n_names + 2, np.int64),
        np.zeros((n_bytes or 16 * n_names) + 8, np.uint8),
        np.zeros(1, np.int64),
    )


def _grow_names(names: kernel.Names) -> kernel.Names:
    """Twice the room for whatever is short."""
    n = int(names.state[0])
    table, stops, arena = names.table, names.stops, names.arena
    if n + 3 > len(stops):
        stops = np.concatenate([stops, np.zeros(len(stops), np.int64)])
    if 2 * (n + 1) > len(table):
        grown = kernel.Names(np.zeros(2 * len(table), np.uint64), stops, arena, names.state)
        kernel.rehash_names(grown)
        return grown
    if stops is names.stops:
        arena = np.concatenate([arena, np.zeros(len(arena), np.uint8)])
    return kernel.Names(table, stops, arena, names.state)


class LookupTable:
    """The dimension table as the kernel wants it: keys, and for each the id of its action, and its features.

    Args:
        lookup: the table of the plan, or None.
        features: all features of the plan.
    """

    def __init__(self, lookup: Lookup | None, features: Sequence[Feature] = ()) -> None:
        n_keys = lookup.n_rows if lookup else 0
        self.keys = _make_names(max(n_keys, 4), max(len(lookup.key_bytes), 16) if lookup else 16)
        self.texts: list[bytes] = []
        self.categories: list[bytes] = []
        looked_up = [feature for feature in features if feature.looked_up]
        self.features = np.full((max(n_keys, 1), len(looked_up)), kernel.NO_VALUE, np.int64)
        self.actions = np.full(max(n_keys, 1), -1, np.int64)
        if lookup is None:
            return
        ids = np.zeros(n_keys, np.int64)
        kernel.intern_names(
            np.append(lookup.key_bytes, np.zeros(8, np.uint8)), np.array(lookup.key_start), self.keys, ids
        )
        known: dict[str, int] = {}
        # of a key that comes twice the first counts
        for i in range(len(lookup.values) - 1, -1, -1):
            value = lookup.values[i]
            self.actions[ids[i]] = known.setdefault(value, len(known)) if value else -1
        self.texts = [text.encode() for text in known]
        categories: dict[str, int] = {}
        for place, (feature, values) in enumerate(zip(looked_up, lookup.features, strict=True)):
            if feature.kind == "number":
                read = _read_numbers([value.encode() for value in values])
            else:
                read = np.array([categories.setdefault(value, len(categories)) for value in values], np.int64)
            filled = np.array([value.strip() != "" for value in values])
            self.features[ids[filled], place] = read[filled]
        self.categories = [text.encode() for text in categories]


def _read_numbers(texts: list[bytes]) -> NDArray[np.int64]:
    values = np.zeros(len(texts), np.int64)
    data = np.frombuffer(b"".join(texts) + bytes(8), np.uint8)
    kernel.read_numbers(data, _starts([len(text) for text in texts]), values)
    return values


def make_layout(file: FilePlan, plan: IngestPlan) -> kernel.Layout:
    """What the kernel must know of one file."""
    dialect, form = file.dialect, plan.time_format
    numbers = np.zeros(kernel.N_NUMBERS, np.int64)
    numbers[kernel.DELIMITER] = dialect.delimiter
    numbers[kernel.QUOTE] = -1 if dialect.quote is None else dialect.quote
    # of JSON, only the needed values reach the kernel, and an empty one behind them
    is_projected = file.source.form != "delimited"
    numbers[kernel.N_FIELDS] = len(file.needed) + 1 if is_projected else len(dialect.header)
    numbers[kernel.TIME_KIND] = _TIME_KINDS.index(form.kind)
    numbers[kernel.UNIT_US] = form.unit_us
    numbers[kernel.DATE_SEPARATOR] = form.date_separator or 0
    numbers[kernel.YEAR_DIGITS] = form.year_digits
    numbers[kernel.CLOCK_DIGITS] = form.clock_digits
    numbers[kernel.HAS_LOOKUP] = plan.lookup is not None and plan.lookup.gives_action
    rules, bounds = plan.rules, np.iinfo(np.int64)
    numbers[kernel.SINCE] = bounds.min if rules.since is None else rules.since
    numbers[kernel.UNTIL] = bounds.max if rules.until is None else rules.until - 1
    numbers[kernel.N_WHERE] = len(rules.where)
    columns, conditions = [tuple(getattr(file, role) or ()) for role in ROLES], file.where
    features = file.features
    if is_projected:
        places = {column: place for place, column in enumerate(file.needed)}
        columns = [tuple(places.get(column, column) for column in role) for role in columns]
        conditions = tuple(places.get(column, column) for column in file.where)
        features = tuple(places.get(column, column) for column in file.features)
    if form.kind == "gaps":
        number, *days = columns[1]
        columns[1] = (number, *(column + kernel.OPTIONAL for column in days))
    literals = [tuple(plan.nulls.get(role, ())) for role in ROLES] + [feature.nulls for feature in plan.features]
    flat = [literal for role in literals for literal in role]
    return kernel.Layout(
        numbers,
        np.array([*(column for role in columns for column in role), 0], np.int64),
        _starts([len(role) for role in columns]),
        np.frombuffer(b"".join(flat) + bytes(16), np.uint8).copy(),
        _starts([len(literal) for literal in flat]),
        _starts([len(role) for role in literals]),
        np.array([sum({1 << min(len(literal), 62) for literal in role}) for role in literals], np.int64),
        np.frombuffer(b"".join(file.constants) + bytes(16), np.uint8).copy(),
        _starts([len(constant) for constant in file.constants]),
        *kernel_conditions(rules, conditions),
        np.array(features, np.int64),
    )


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


class Parser:
    """One worker's parser and its store.

    Args:
        lookup: the dimension table of the run.
        store_bytes: how much the store may take before it must be emptied.
        rules: of the run.
        features: of the run.
    """

    def __init__(
        self, lookup: LookupTable, store_bytes: int, rules: Rules = _NO_RULES, features: Sequence[Feature] = ()
    ) -> None:
        self.lookup = lookup
        self._features: kernel.Features | None = None
        self._store_bytes = store_bytes
        self._has_huge_pages = store_bytes >= _LEAST_HUGE_STORE
        self.customers = _make_names()
        self.actions = _make_names(
            max(_FIRST_NAMES, len(lookup.texts) + 1), 16 * _FIRST_NAMES + sum(map(len, lookup.texts))
        )
        _intern(lookup.texts, self.actions)
        n_first = max(_LEAST_FRAGMENTS, min(_MOST_FIRST_FRAGMENTS, store_bytes >> 9))
        # PERF: room for all that the store may ever hold; what is not written to takes no memory, and no copy is made
        self._room = {
            name: _reserve(store_bytes // np.dtype(dtype).itemsize + 4 * n_first, dtype, huge=self._has_huge_pages)
            for name, dtype in _GROWING.items()
            if name != "rows" or rules.drop_duplicates
        }
        self.store = kernel.Store(
            *(self._room[name][:n_first] for name in _PER_FRAGMENT),
            self._room["actions"][: 4 * n_first],
            self._room["rows"][: 4 * n_first] if rules.drop_duplicates else np.empty(0, np.uint64),
            np.zeros(len(self.actions.stops), np.int64),
            np.zeros(_FIRST_NAMES, np.uint64),
            np.zeros(SAMPLE_ROWS, np.uint64),
            np.zeros(SAMPLE_ROWS, np.uint64),
            np.zeros(kernel.N_STATE, np.int64),
        )
        if features:
            self._keep_features(features, n_first)
        self.store.state[kernel.MIN_TIME] = np.iinfo(np.int64).max
        self.store.state[kernel.MAX_TIME] = np.iinfo(np.int64).min
        self._rejects = kernel.Rejects(
            *(np.zeros(_REJECTS_AT_ONCE, np.int64) for _ in range(3)),
            np.zeros(_REJECTS_AT_ONCE, np.uint8),
            np.zeros(2, np.int64),
            np.zeros(len(rules.where) + 2, np.int64),
        )

    def _keep_features(self, features: Sequence[Feature], n_first: int) -> None:
        looked_up = [feature.name for feature in features if feature.looked_up]
        n_categories, n_bytes = len(self.lookup.categories) + 1, sum(map(len, self.lookup.categories))
        names = _make_names(max(_FIRST_NAMES, n_categories), 16 * _FIRST_NAMES + n_bytes)
        _intern(self.lookup.categories, names)
        room = self._store_bytes // 8 + 4 * n_first * len(features)
        self._room["values"] = _reserve(room, np.int64, huge=self._has_huge_pages)
        self._features = kernel.Features(
            np.array([feature.kind == "number" for feature in features], np.int64),
            np.array([looked_up.index(own.name) if own.looked_up else -1 for own in features], np.int64),
            self._room["values"][: len(features) * len(self.store.actions)],
            names,
            self.lookup.keys,
            self.lookup.features,
        )

    @property
    def categories(self) -> kernel.Names:
        """Local ids of all categories; only where the run has features."""
        assert self._features is not None
        return self._features.categories

    @property
    def values(self) -> NDArray[np.int64]:
        """What the features of the store's actions are; only where the run has features."""
        assert self._features is not None
        values: NDArray[np.int64] = self._features.values
        return values

    @property
    def n_fragments(self) -> int:
        """Fragments in the store."""
        return int(self.store.state[kernel.N_FRAGMENTS])

    @property
    def n_events(self) -> int:
        """Rows accepted so far, stores that were emptied included."""
        return int(self.store.state[kernel.N_EVENTS])

    def parse(self, block: Block, layout: kernel.Layout, spill: Any) -> BlockReport:
        """Parse a block.

        Args:
            block: complete records.
            layout: of the block's source.
            spill: called when the store is full; must empty it.

        Returns:
            How many rows and lines there were, those that each rule left out, and the rejected ones.
        """
        report = BlockReport(block.source, block.offset, block.n_bytes, n_lines=block.n_lines)
        if block.long_row is not None:
            report.n_rows = 1
            report.rejects.append(Rejects.of_long_row(block.offset, block.long_row))
            return report
        workspace = block.workspace
        data, separators, row_stops = workspace.buffer, workspace.separators, workspace.row_stops
        self._rejects.state[:] = 0
        self._rejects.filtered[:] = 0
        row, stop = block.rows
        row_start = block.row_start
        while True:
            row = kernel.parse_rows(
                data,
                block.scratch,
                separators,
                row_stops,
                row_start,
                (row, stop),
                not block.has_escapes,
                layout,
                self.customers,
                self.actions,
                self.lookup.keys,
                self.lookup.actions,
                self.store,
                self._rejects,
                layout.conditions,
                self._features,
            )
            if row == stop:
                break
            if row > block.rows[0]:
                row_start = int(separators[(row_stops[row - 1] & ~np.uint32(_engine.UNCLOSED)) - 1]) + 1
            status = self.store.state[kernel.STATUS]
            if status == kernel.REJECTS_FULL:
                self._drain(block, report)
            elif status == kernel.SCRATCH_FULL:
                data = np.concatenate([data, np.zeros(len(data), np.uint8)])
            elif status == kernel.SAMPLE_FULL:
                self._thin_sample()
            else:
                self._make_room(status, spill)
        report.n_rows = stop - block.rows[0] - int(self._rejects.state[1])
        report.filtered = self._rejects.filtered.copy()
        self._drain(block, report)
        return report

    def _drain(self, block: Block, report: BlockReport) -> None:
        n = int(self._rejects.state[0])
        if n == 0:
            return
        data = block.workspace.buffer
        rows, starts, stops = self._rejects.row[:n], self._rejects.start[:n], self._rejects.stop[:n]
        reasons = self._rejects.reason[:n].copy()
        numbers = rows - block.rows[0]
        lines = numbers.copy()
        if block.n_lines != block.rows[1] - block.rows[0]:
            kernel.count_lines(data, block.row_start, starts, lines)
        if block.original is not None:
            offsets, raws = block.original.take(numbers)
            sizes, raw = np.array([len(one) for one in raws], np.int64), np.frombuffer(b"".join(raws), np.uint8)
        else:
            offsets, sizes = block.origin + starts, stops - starts
            raw = np.empty(int(sizes.sum()), np.uint8)
            kernel.take_rows(data, starts, stops, raw)
        if block.is_projected:
            reasons[reasons == kernel.FIELD_COUNT] = REASONS.index("bad_json")
        report.rejects.append(Rejects(offsets, lines, reasons, sizes, raw))
        self._rejects.state[0] = 0

    def measure(self) -> StoreSize:
        """How much the store holds."""
        n_customers, n_names, n_actions = (
            int(state) for state in (self.customers.state[0], self.actions.state[0], self.store.state[kernel.N_ACTIONS])
        )
        return StoreSize(
            n_customers,
            int(self.customers.stops[n_customers]) if n_customers else 0,
            self.n_fragments,
            n_actions,
            n_actions if len(self.store.rows) else 0,
            n_names,
            int(self.actions.stops[n_names]) if n_names else 0,
            self._store_bytes,
            0 if self._features is None else len(self._features.is_number),
        )

    def take_sample(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], int]:
        """What was sampled to tell rows that come twice, which the parser then forgets."""
        state, n = self.store.state, int(self.store.state[kernel.N_SAMPLED])
        state[kernel.N_SAMPLED] = 0
        return self.store.sample_keys[:n].copy(), self.store.sample_rows[:n].copy(), int(state[kernel.SAMPLE_BITS])

    def _thin_sample(self) -> None:
        store = self.store
        keys, rows, bits = thin_sample(store.sample_keys, store.sample_rows, int(store.state[kernel.SAMPLE_BITS]))
        store.sample_keys[: len(keys)], store.sample_rows[: len(rows)] = keys, rows
        store.state[kernel.N_SAMPLED], store.state[kernel.SAMPLE_BITS] = len(keys), bits

    def _make_room(self, status: int, spill: Any) -> None:
        store = self.store
        if status == kernel.ACTIONS_FULL:
            self.actions = _grow_names(self.actions)
            if len(store.action_counts) <= len(self.actions.stops):
                self.store = store._replace(action_counts=_doubled(store.action_counts))
            if self._n_bytes(self.actions) > self._store_bytes:
                raise BudgetError(
                    f"more than {int(self.actions.state[0]):,} different actions do not fit into the memory given",
                    hint="is this the right --action column? otherwise give more --memory",
                )
            return
        if status == kernel.CATEGORIES_FULL:
            self._grow_categories()
            return
        if status == kernel.STORE_FULL:
            names = _PER_FRAGMENT if self.n_fragments == len(store.key) else ("actions", "rows")
            sizes = {name: self._grown_size(name) for name in names if name in self._room}
            growth = sum(sizes[name] * self._room[name].itemsize - getattr(store, name).nbytes for name in sizes)
            n_features = 0 if self._features is None else len(self._features.is_number)
            growth += 8 * n_features * (sizes.get("actions", len(store.actions)) - len(store.actions))
            if self._held_bytes() + growth > self._store_bytes and self.n_fragments > 0:
                spill()
            else:
                self.store = store._replace(**{name: self._room[name][:size] for name, size in sizes.items()})
                if self._features is not None:
                    room = self._room["values"][: n_features * len(self.store.actions)]
                    self._features = self._features._replace(values=room)
            return
        # the arrays and their copies stand side by side for a moment
        copied = 2 * (store.hashes.nbytes + self._n_bytes(self.customers[:3]))
        if self._held_bytes() + copied > self._store_bytes and self.n_fragments > 0:
            spill()
        else:
            if self.customers.state[0] >= len(store.hashes):
                self.store = store._replace(hashes=_doubled(store.hashes))
            self.customers = _grow_names(self.customers)

    def _grow_categories(self) -> None:
        assert self._features is not None
        self._features = self._features._replace(categories=_grow_names(self._features.categories))
        if self._n_bytes(self._features.categories) > self._store_bytes:
            raise BudgetError(
                f"more than {int(self._features.categories.state[0]):,} different categories of the features do not "
                "fit into the memory given",
                hint="is one of the --feature columns an id of rows? leave it out, or give more --memory",
            )

    def _grown_size(self, name: str) -> int:
        size = len(getattr(self.store, name))
        return min(size + max(size >> 2, 1), len(self._room[name]))

    def _held_bytes(self) -> int:
        """What the store and its customers take, of which the last page of each array may be all but empty."""
        pages = len(self._room) * _HUGE_PAGE if self._has_huge_pages else 0
        n_values = 0 if self._features is None else self._features.values.nbytes
        return self._n_bytes(self.store) + self._n_bytes(self.customers) + n_values + pages

    @staticmethod
    def _n_bytes(arrays: Sequence[Any]) -> int:
        return sum(array.nbytes for array in arrays)

    def empty(self) -> None:
        """Forget customers, fragments and their actions, and keep the room."""
        self.customers.table[:] = 0
        self.customers.state[0] = 0
        self.store.state[kernel.N_FRAGMENTS] = 0
        self.store.state[kernel.N_ACTIONS] = 0

    def release(self) -> None:
        """Give all room back; counts and times stay."""
        nothing = np.zeros(0, np.uint32)
        self._room = {}
        self.store = self.store._replace(
            customer=nothing, n_actions=nothing, time=nothing, key=nothing, actions=nothing, rows=nothing
        )
        self.customers = _make_names(1)
        if self._features is not None:
            self._features = self._features._replace(values=np.zeros(0, np.int64), categories=_make_names(1))


def _intern(texts: list[bytes], names: kernel.Names) -> None:
    """Give texts that are all different the first ids."""
    if texts:
        data = np.frombuffer(b"".join(texts) + bytes(8), np.uint8).copy()
        kernel.intern_names(data, _starts([len(text) for text in texts]), names, np.zeros(len(texts), np.int64))


def _reserve(n: int, dtype: Any, *, huge: bool) -> NDArray[Any]:
    """An array of addresses that take memory only where they are written to."""
    room = mmap.mmap(-1, n * np.dtype(dtype).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    with suppress(OSError):  # a kernel without huge pages
        room.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(room, dtype)


def _doubled(array: Any) -> Any:
    return np.concatenate([array, np.zeros_like(array)])
