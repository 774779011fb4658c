"""Carry out an ingest plan: every source through scan, parse, partition and merge into a dataset folder."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast import _engine
from luckyfast.config import peak_memory, resident_memory
from luckyfast.errors import BudgetError, InputError
from luckyfast.ingestion.append import Base, content_ids, open_base
from luckyfast.ingestion.categories import Categories
from luckyfast.ingestion.checkpoint import Checkpoints, load_state
from luckyfast.ingestion.disk import check_disk, estimate_disk
from luckyfast.ingestion.duplicates import DuplicateSample
from luckyfast.ingestion.featureshards import FeatureReader
from luckyfast.ingestion.feed import Feed
from luckyfast.ingestion.gaps import VisitDays, has_gaps
from luckyfast.ingestion.giants import Giant, merge_all
from luckyfast.ingestion.jsonlines import Projector, find_projector
from luckyfast.ingestion.manifest import check_conservation, make_manifest, measure_order, time_kind, write_vocabulary
from luckyfast.ingestion.mending import describe_dialect
from luckyfast.ingestion.merge import Histories, merge_buckets, plan_merge
from luckyfast.ingestion.parse import LookupTable, Parser, make_layout
from luckyfast.ingestion.partition import N_BUCKETS, Ranking, Run, Vocabulary, cut_store
from luckyfast.ingestion.places import Workplace, open_workplace
from luckyfast.ingestion.plan import Dialect, Feature, FilePlan, IngestPlan, Roles, Rules, Source, TimeFormat
from luckyfast.ingestion.rejects import RejectLog, write_rejects
from luckyfast.ingestion.rules import describe_filters
from luckyfast.ingestion.schema import format_schema
from luckyfast.ingestion.shardrun import ShardRun
from luckyfast.ingestion.shards import BATCH_PAIRS, ShardWriter
from luckyfast.ingestion.stream import Block, Workspace
from luckyfast.ingestion.survey import Survey, survey_histories
from luckyfast.ingestion.turns import short_turns
from luckyfast.ingestion.watch import FileWatch
from luckyfast.kernels import parse as parse_kernel
from luckyfast.progress import NullProgress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.progress import Progress

__all__ = ["Budget", "IngestSummary", "run_plan"]

BLOCK_BYTES = 1 << 20
_MIN_BLOCK_BYTES = 1 << 18
_WORKER_BYTES = 10 << 20
_RESERVE_BYTES = 104 << 20  # Arrow and Parquet, loaded later, and what they buffer
_MIN_STORE_BYTES = 12 << 20
_MERGE_TARGET_BYTES = 8 << 20
_SIDE_BYTES = 36  # of a feature of a visit, in the merge and in Arrow
_ROWS_BEFORE_JUDGING = 20_000
_USUAL_RATIO = 4  # of the sizes of a text and of the compressed text


@dataclass(frozen=True)
class IngestSummary:
    """What a run did.

    Attributes:
        path: the dataset folder.
        counts: as in the manifest.
        rejects_by_reason: reason to number of rows.
        filtered_by_rule: rule to the number of rows it left out.
        other_actions: how many actions with how many events became `<other>`.
        duplicates: as in the manifest.
        differences: how the files differ from each other, or nothing.
        encodings: which files are not read as UTF-8, and why, or nothing.
        reject_examples: reason to the first few rejects as (source, line, raw bytes).
        time_kind: "clock" or "order".
        time_range: smallest and largest time, µs since the epoch or order numbers.
        times_are_relative: whether a customer's times count from the first visit of that customer.
        visits_over_days: visits whose last row is of a later day than their first.
        top_actions: the most frequent actions with their events.
        order_leak: as in the manifest.
        roles: role to its columns and why they were taken.
        features: as in the manifest, and why each is of its kind.
        elapsed_s: seconds.
        bytes_read: decompressed bytes.
        peak_rss_bytes: the most memory that the process has had so far.
        n_spilled_runs: how often a worker's store went to disk.
    """

    path: Path
    counts: dict[str, int]
    rejects_by_reason: dict[str, int]
    filtered_by_rule: dict[str, int]
    other_actions: dict[str, int]
    duplicates: dict[str, Any]
    differences: str
    encodings: str
    reject_examples: dict[str, list[tuple[str, int, bytes]]]
    time_kind: str
    time_range: tuple[int, int]
    times_are_relative: bool
    visits_over_days: int
    top_actions: list[tuple[str, int]]
    order_leak: dict[str, Any]
    roles: dict[str, tuple[tuple[str, ...] | None, str]]
    features: list[dict[str, Any]]
    elapsed_s: float
    bytes_read: int
    peak_rss_bytes: int
    n_spilled_runs: int


@dataclass(frozen=True)
class Budget:
    """How memory is divided: workers, bytes of a block, of each worker's store, and of the merge altogether."""

    n_workers: int
    block_bytes: int
    store_bytes: int
    merge_bytes: int


def run_plan(plan: IngestPlan, *, progress: Progress | None = None, budget: Budget | None = None) -> IngestSummary:
    """Read all sources and write the dataset.

    Args:
        plan: from `make_plan`.
        progress: told about bytes read and customers merged.
        budget: how to divide memory; by default what `plan.memory_bytes` allows.

    Returns:
        The summary.

    Raises:
        OutputExistsError: the output folder is there already, or an interrupted run is in the way.
        DatasetError: the dataset to append to or the run to resume does not fit.
        InputError: a source cannot be read, too many rows are rejected, or the disk is full.
        BudgetError: the work cannot be done in `plan.memory_bytes`.
        ConservationError: rows were lost, which is a defect of luckyfast.
    """
    progress = progress or NullProgress()
    started = time.monotonic()
    with short_turns(), open_workplace(plan) as workplace:
        return _Run(plan, workplace, progress, started).carry_out(budget)


class _Run:
    """One run of ingest, in its steps."""

    def __init__(self, plan: IngestPlan, workplace: Workplace, progress: Progress, started: float) -> None:
        self.plan = plan
        self.workplace = workplace
        self.partial = workplace.dataset
        self.temp = workplace.spills
        self.progress = progress
        self.started = started
        self.filters = describe_filters(plan.rules, time_kind(plan))
        first_offsets = [file.dialect.header_stop for file in plan.files]
        self.log = RejectLog(first_offsets, workplace.spills, len(self.filters))
        self.sample = DuplicateSample()
        self.watch = FileWatch(plan.files)
        self.contents = content_ids(plan.files)
        self.base: Base | None = None
        self.vocabulary = Vocabulary()
        self.categories = Categories(plan.features) if plan.features else None
        self.lookup = LookupTable(plan.lookup, plan.features)
        self.days = VisitDays()
        self.runs: list[Run] = []
        self.n_spilled = 0
        self.n_workers = 1
        self.lock = threading.Lock()
        # of rows that an interrupted run has read: events, smallest and largest time
        self.before = np.array([0, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
        self.starts: dict[int, int] = {}
        self.checkpoints: Checkpoints | None = None

    def carry_out(self, budget: Budget | None) -> IngestSummary:
        is_over = False
        try:
            # before memory is divided: a compiler takes memory too
            _load_kernels(self.plan.rules, self.plan.features)
            self._open_base()
            self._restore()
            budget = budget or self._divide_memory()
            self.n_workers = budget.n_workers
            with ThreadPoolExecutor(budget.n_workers) as pool:
                try:
                    summary = self._carry_out(budget, pool)
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
            is_over = True
            return summary
        finally:
            if self.checkpoints is not None:
                self.checkpoints.close(is_over=is_over)

    def _carry_out(self, budget: Budget, pool: ThreadPoolExecutor) -> IngestSummary:
        plan = self.plan
        parsers = self._parse_all(budget, pool)
        self.watch.check()
        self._check_rejects(final=True)
        self._gather_runs(parsers, pool)
        n_accepted, *bounds = self._measure(parsers).tolist()
        times = (bounds[0], bounds[1])
        del parsers
        if self.base is not None:
            n_accepted += self.base.manifest["counts"]["events"]
            times = self.base.widen(times)
        rules = plan.rules
        n_duplicates = n_too_few = 0
        if n_accepted and (rules.drop_duplicates or rules.min_visits > 1):
            survey = self._survey(budget, pool)
            n_duplicates, n_too_few = n_accepted - survey.n_rows, survey.n_rows - int(survey.events.sum())
            self.vocabulary.recount(survey.events)
            if rules.min_visits > 1:
                times = survey.time_range
        filtered = self._filtered_by_rule(n_too_few)
        rejects = Counter(self.log.by_reason)
        n_rows = self.log.n_rows
        if self.base is not None:
            before = self.base.manifest
            n_rows += before["counts"]["rows_read"]
            rejects.update(before["rejects_by_reason"])
            filtered = {rule: n + before["filtered_by_rule"].get(rule, 0) for rule, n in filtered.items()}
        n_events = n_accepted - n_duplicates - n_too_few
        if n_events == 0:
            raise no_events(filtered)
        ranking = self.vocabulary.rank(rules.top_actions)
        # small work that needs no merge goes first, so that the workers are never idle at the end
        order_leak = pool.submit(self._measure_order)
        examples = pool.submit(self._write_rejects)
        writer = self._merge(budget, ranking.ranks, pool)
        if has_gaps(plan.time_format):
            times = self.days.time_range
        counts = {
            "rows_read": n_rows,
            "events": n_events,
            "duplicates_removed": n_duplicates,
            "filtered": sum(filtered.values()),
            "rejected": rejects.total(),
            "customers": sum(shard.customers for shard in writer.shards),
            "visits": sum(shard.visits for shard in writer.shards),
            "actions": len(ranking.texts),
        }
        check_conservation(counts, writer.shards, sum(ranking.events))
        return self._write(
            counts,
            times,
            filtered,
            dict(sorted(rejects.items())),
            ranking,
            writer,
            order_leak.result(),
            examples.result(),
        )

    def _open_base(self) -> None:
        """With `--append`, let the histories that are there already be the first run."""
        if not self.plan.append:
            return
        self.base = open_base(self.plan, self.contents)
        ids = self.vocabulary.adopt(self.base.texts, self.base.events)
        described = self.base.manifest.get("features", [])
        own_ids = [] if self.categories is None else self.categories.adopt(described)
        features = [(own.name, own.kind) for own in self.plan.features]
        side = FeatureReader(features, own_ids)
        has_days = has_gaps(self.plan.time_format)
        self.runs.append(ShardRun(self.plan.out, self.base.manifest["shards"], ids, has_days, side))

    def _restore(self) -> None:
        """Take in what an interrupted run had come to at its last checkpoint."""
        entry = self.workplace.journal.last
        if entry is None:
            return
        state = load_state(self.temp, entry)
        self.log.restore(state)
        self.vocabulary.restore(state)
        if self.categories is not None:
            self.categories.restore(state)
        self.sample.restore(state)
        self.before = state["measure"]
        self.runs += [Run.load(self.temp / name) for name in entry["runs"]]
        self.n_spilled = 1 + max((int(name.removeprefix("run-")) for name in entry["runs"]), default=-1)
        offsets = self.log.next_offsets()
        begun = [i for i, file in enumerate(self.plan.files) if offsets[i] > file.dialect.header_stop]
        self.starts = {i: offsets[i] for i in begun} | dict.fromkeys(state["finished"].tolist(), -1)

    def _take_state(self, feed: Feed, parsers: list[Parser]) -> tuple[dict[str, NDArray[Any]], list[Path], list[Path]]:
        """All that `_restore` needs; no worker is working, and their stores are empty."""
        arrays, spools = self.log.to_arrays()
        offsets = self.log.next_offsets()
        ended = {i for i, file in enumerate(self.plan.files) if offsets[i] >= file.source.size_bytes}
        plain = {i for i in ended if self.plan.files[i].source.is_plain}
        arrays["finished"] = np.array(sorted(feed.finished | plain), np.int64)
        arrays["measure"] = self._measure(parsers)
        arrays |= self.vocabulary.to_arrays() | self.sample.to_arrays()
        arrays |= {} if self.categories is None else self.categories.to_arrays()
        return arrays, [run.path for run in self.runs if run.path is not None], spools

    def _measure(self, parsers: list[Parser]) -> NDArray[np.int64]:
        """Accepted rows, and their smallest and largest time."""
        states = [parser.store.state for parser in parsers]
        n_events = int(self.before[0]) + sum(int(state[parse_kernel.N_EVENTS]) for state in states)
        low = min(int(self.before[1]), *(int(state[parse_kernel.MIN_TIME]) for state in states))
        high = max(int(self.before[2]), *(int(state[parse_kernel.MAX_TIME]) for state in states))
        return np.array([n_events, low, high])

    def _filtered_by_rule(self, n_too_few: int) -> dict[str, int]:
        """What each rule that was asked for has left out, by itself: a row counts under the first that it breaks."""
        rules = self.plan.rules
        asked = [*(True for _ in rules.where), rules.since is not None, rules.until is not None]
        counts = zip(self.filters, self.log.filtered.tolist(), asked, strict=True)
        filtered: dict[str, int] = {}
        for name, n, is_asked in counts:
            if is_asked:
                filtered[name] = filtered.get(name, 0) + n
        return filtered | ({f"min-visits {rules.min_visits}": n_too_few} if rules.min_visits > 1 else {})

    def _divide_memory(self) -> Budget:
        """Give each worker its blocks and its store, from what the process does not hold already."""
        plan = self.plan
        used = resident_memory()
        # of a record batch, which may have a visit per pair, the features lie in memory twice
        reserve = _RESERVE_BYTES + _SIDE_BYTES * len(plan.features) * BATCH_PAIRS
        left = plan.memory_bytes - used - reserve
        for n_workers in range(max(1, plan.n_workers), 0, -1):
            share = left // n_workers - _WORKER_BYTES
            # to cut a store takes as much again as its largest column and an order
            store_bytes = int(share / 1.8)
            if store_bytes >= _MIN_STORE_BYTES or (n_workers == 1 and store_bytes >= _MIN_STORE_BYTES // 2):
                if store_bytes >= 10 * _WORKER_BYTES:
                    # PERF: half as many turns at the interpreter
                    return Budget(n_workers, 2 * BLOCK_BYTES, store_bytes - _WORKER_BYTES, left)
                block = BLOCK_BYTES if store_bytes >= 2 * _MIN_STORE_BYTES else _MIN_BLOCK_BYTES * 2
                return Budget(n_workers, block, store_bytes, max(left, 0))
        needed = used + reserve + _WORKER_BYTES + _MIN_STORE_BYTES
        raise BudgetError(
            f"{plan.memory_bytes >> 20} MiB of memory are too little: {used >> 20} MiB are taken before the first row",
            hint=f"give at least --memory {(needed >> 20) + 8}MiB",
        )

    def _parse_all(self, budget: Budget, pool: ThreadPoolExecutor) -> list[Parser]:
        plan = self.plan
        self.progress.start("Reading", float(sum(file.source.size_bytes for file in plan.files)), "bytes")
        layouts = [make_layout(file, plan) for file in plan.files]
        parsers = [Parser(self.lookup, budget.store_bytes, plan.rules, plan.features) for _ in range(budget.n_workers)]
        feed = Feed(plan.files, budget.block_bytes, budget.n_workers, self.log.begin, self.starts)
        self.checkpoints = checkpoints = Checkpoints(
            self.workplace.journal, self.temp, budget.n_workers, lambda: self._take_state(feed, parsers)
        )

        def work(parser: Parser) -> None:
            workspace = Workspace(budget.block_bytes)
            projectors: dict[tuple[str, ...], Projector] = {}
            try:
                while (block := feed.next(workspace)) is not None:
                    if projector := find_projector(plan.files[block.source], projectors):
                        block = projector.project(block)
                    self.log.add(parser.parse(block, layouts[block.source], lambda: self._spill(parser)))
                    if workspace.rest is None:
                        checkpoints.pause(lambda: self._spill(parser))
                checkpoints.leave()
            except BaseException:
                stop()
                raise

        def stop() -> None:
            feed.stop()
            self.log.stop()
            checkpoints.stop()

        working = {pool.submit(work, parser) for parser in parsers}
        try:
            # the workers do not need it, and its import is long
            import pyarrow.parquet  # noqa: F401

            n_bytes = 0
            done: set[Future[None]] = set()
            while working:
                done, working = wait(working, 0.05, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                n_before, n_bytes = n_bytes, feed.disk_bytes
                self.progress.advance(n_bytes - n_before)
                self._check_rejects(final=False)
        finally:
            stop()
            wait(working)
            feed.close()
        self.progress.finish()
        return parsers

    def _spill(self, parser: Parser) -> None:
        if self.checkpoints is not None:
            self.checkpoints.want()
        with self.lock:
            self.sample.add(*parser.take_sample())
            if parser.n_fragments == 0:
                return
            if self.n_spilled == 0:
                self._check_disk(parser)
            path = self.temp / f"run-{self.n_spilled:06d}"
            self.n_spilled += 1
        run = cut_store(parser, self.vocabulary.publish(parser), path, self.categories)
        with self.lock:
            self.runs.append(run)

    def _check_disk(self, parser: Parser) -> None:
        """Before the first spill: as the bytes read so far have filled the stores, the others will."""
        read = max(self.log.n_bytes, 1)
        total = sum(
            file.source.size_bytes * (1 if file.source.is_plain or file.source.is_columnar else _USUAL_RATIO)
            for file in self.plan.files
        )
        share = parser.measure()
        spilled, written = estimate_disk(share, self.n_workers * max(1.0, total / read), self.n_workers)
        check_disk({self.temp: spilled, self.partial: written})

    def _gather_runs(self, parsers: list[Parser], pool: ThreadPoolExecutor) -> None:
        """What is left in the stores becomes runs: on disk if others went there, or else in memory."""

        def gather(parser: Parser) -> None:
            if parser.n_fragments == 0:
                self.vocabulary.publish(parser)
            elif self.n_spilled:
                self._spill(parser)
            else:
                run = cut_store(parser, self.vocabulary.publish(parser), None, self.categories)
                with self.lock:
                    self.runs.append(run)
            with self.lock:
                self.sample.add(*parser.take_sample())
            parser.release()

        list(pool.map(gather, parsers))
        if self.n_spilled and self.checkpoints is not None:
            self.checkpoints.note()

    def _survey(self, budget: Budget, pool: ThreadPoolExecutor) -> Survey:
        """Count what the rules on whole histories leave, in a merge that writes nothing."""
        n_actions = len(self.vocabulary)
        ids = np.arange(1, n_actions + 1, dtype=np.int32)
        return survey_histories(self._merged("Counting", budget, ids, 1, pool), n_actions, self.plan.rules.min_visits)

    def _merge(self, budget: Budget, ranks: Any, pool: ThreadPoolExecutor) -> ShardWriter:
        features = [(feature.name, feature.kind) for feature in self.plan.features]
        # of an older dataset to which files are added nothing is known of days, and no zero stands for that
        knows_days = all(run.knows_days for run in self.runs if isinstance(run, ShardRun))
        kind = time_kind(self.plan)
        has_days = kind == "clock" and not has_gaps(self.plan.time_format) and knows_days
        writer = ShardWriter(self.partial / "shards", kind, features, has_days=has_days)
        try:
            for merged in self._merged("Merging", budget, ranks, self.plan.rules.min_visits, pool):
                if isinstance(merged, Giant):
                    writer.push_giant(merged)
                else:
                    writer.push(merged)
            writer.close()
        except BaseException:
            writer.abort()
            raise
        return writer

    def _merged(
        self, stage: str, budget: Budget, ranks: Any, min_visits: int, pool: ThreadPoolExecutor
    ) -> Iterator[Histories | Giant]:
        """All histories in order, merged stretch by stretch."""
        n_ahead = budget.n_workers + 1
        sizes = [int(run.bucket_bytes().sum()) for run in self.runs]
        held = sum(size for run, size in zip(self.runs, sizes, strict=True) if run.is_in_memory)
        share = max(budget.merge_bytes - held, 0) // (n_ahead + 1)
        # enough stretches for all workers even where there is little to merge
        target = min(_MERGE_TARGET_BYTES, max(sum(sizes) // (4 * budget.n_workers), _MERGE_TARGET_BYTES >> 4))
        stretches = plan_merge(self.runs, share, target)
        categories = None if self.categories is None else self.categories.rank()
        self.progress.start(stage, float(len(stretches)), "parts")
        parts = merge_all(
            pool,
            self.runs,
            ranks,
            stretches,
            n_ahead=n_ahead,
            share_bytes=share,
            folder=self.temp,
            least_pairs=BATCH_PAIRS,
            min_visits=min_visits,
            categories=categories,
        )
        # the customers of this merge alone
        self.days = VisitDays()
        for merged in self.days.add_up(parts) if has_gaps(self.plan.time_format) else parts:
            yield merged
            self.progress.advance(1)
        self.progress.finish()

    def _check_rejects(self, *, final: bool) -> None:
        """Stop where more rows are rejected than allowed; before the end only when that is all but certain."""
        log, plan = self.log, self.plan
        n_rows, n_rejected = log.n_rows, log.n_rejected
        if final:
            expected = n_rows
        else:
            if n_rows < _ROWS_BEFORE_JUDGING or any(file.source.compression != "none" for file in plan.files):
                return
            total = sum(file.source.size_bytes for file in plan.files)
            expected = int(1.5 * n_rows * max(1.0, total / max(log.n_bytes, 1)))
        if n_rejected <= plan.max_reject * expected:
            return
        ranked = ", ".join(
            f"{reason} {n:,}" for reason, n in sorted(log.by_reason.items(), key=lambda item: (-item[1], item[0]))
        )
        example = next(((i, r) for i, r in log), None) if final else None
        shown = ""
        if example is not None:
            index, rejects = example
            raw = rejects.cut(0, 1).raw[:80].tobytes()
            shown = f"; the first is line {rejects.line[0]} of {Path(plan.files[index].source.label).name}: {raw!r}"
        share = n_rejected / max(n_rows, 1)
        raise InputError(
            f"{n_rejected:,} of {n_rows:,} rows ({100 * share:.1f} %) were rejected: {ranked}{shown}",
            hint=f"check the role flags, or allow it with --max-reject {min(1.0, 1.1 * share + 0.005):.2f}",
        )

    def _measure_order(self) -> dict[str, Any]:
        return measure_order(self.plan.files[0]) if self.base is None else self.base.manifest["order_leak"]

    def _write_rejects(self) -> dict[str, list[tuple[str, int, bytes]]]:
        folder = self.partial / "rejects"
        n_parts = 0 if self.base is None else self.base.copy_rejects(folder)
        names = [file.source.label for file in self.plan.files]
        return write_rejects(self.log, names, folder / f"part-{n_parts:05d}.parquet")

    def _write(
        self,
        counts: dict[str, int],
        times: tuple[int, int],
        filtered: dict[str, int],
        by_reason: dict[str, int],
        ranking: Ranking,
        writer: ShardWriter,
        order_leak: dict[str, Any],
        examples: dict[str, list[tuple[str, int, bytes]]],
    ) -> IngestSummary:
        plan, partial = self.plan, self.partial
        texts, action_events = ranking.texts, ranking.events
        duplicates = self.sample.measure()
        others = {"actions": ranking.n_others, "events": ranking.n_other_events}
        names = [file.source.label for file in plan.files]
        write_vocabulary(texts, action_events, partial / "vocabulary.parquet")
        if self.base is None:
            (partial / "schema.toml").write_text(format_schema(plan), encoding="utf-8")
            sources = []
        else:
            shutil.copy(self.base.folder / "schema.toml", partial / "schema.toml")
            sources = list(self.base.manifest["sources"])
            duplicates = self.base.add_duplicates(duplicates)
        dialects = [] if self.base is None else list(self.base.manifest.get("dialects", []))
        for i, file in enumerate(plan.files):
            rows, rejected = self.log.source_counts(i)
            dialect = describe_dialect(file)
            if dialect not in dialects:
                dialects.append(dialect)
            sources.append(
                {
                    "path": names[i],
                    "bytes": file.source.size_bytes,
                    "content": self.contents[i],
                    "dialect": dialects.index(dialect),
                    "rows": rows,
                    "rejected": rejected,
                }
            )
        features = [] if self.categories is None else self.categories.describe()
        manifest = make_manifest(
            plan,
            counts,
            by_reason,
            filtered,
            others,
            duplicates,
            times,
            sources,
            dialects,
            writer.shards,
            order_leak,
            features,
            writer.n_long,
        )
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        self.workplace.publish()
        order = sorted(range(len(texts)), key=lambda i: (-action_events[i], texts[i]))[:10]
        return IngestSummary(
            path=plan.out,
            counts=counts,
            rejects_by_reason=by_reason,
            filtered_by_rule=filtered,
            other_actions=others,
            duplicates=duplicates,
            differences=plan.reasons.get("files", ""),
            encodings=plan.reasons.get("encoding", ""),
            reject_examples=examples,
            time_kind=time_kind(plan),
            time_range=times,
            times_are_relative=has_gaps(plan.time_format),
            visits_over_days=writer.n_long,
            top_actions=[(texts[i].decode().replace("\x1f", " / "), action_events[i]) for i in order],
            order_leak=order_leak,
            roles={
                role: (getattr(plan.roles, role), plan.reasons.get(role, ""))
                for role in ("customer", "time", "action", "visit")
            },
            features=[own | {"reason": plan.reasons.get(f"feature {own['name']}", "")} for own in features],
            elapsed_s=time.monotonic() - self.started,
            bytes_read=self.log.n_bytes,
            peak_rss_bytes=peak_memory(),
            n_spilled_runs=self.n_spilled,
        )


def no_events(filtered: dict[str, int]) -> InputError:
    """The error for a run that would give an empty dataset."""
    most = max(filtered, key=lambda rule: filtered[rule], default="")
    if filtered.get(most):
        return InputError(
            f"no row is left: the rule {most!r} left out {filtered[most]:,}",
            hint="check the value, or leave the rule out",
        )
    return InputError("no row could be read as an event", hint="see luckyfast ingest --help for the role flags")


def _load_kernels(rules: Rules, features: Sequence[Feature] = ()) -> None:
    """Run every kernel of a run once, so that all are loaded (or compiled, the first time) on one thread."""
    rows = np.frombuffer(b"a,1,x,v\nb,2,x,w\na,?,x,v\n", np.uint8)
    dialect = Dialect(ord(","), None, False, ("customer", "time", "action", "visit"), 0)
    source = Source(Path(), "none", len(rows))
    features = (Feature("visit", "number"), Feature("action", "category")) if features else ()
    file = FilePlan(source, dialect, (0,), (1,), (2,), (3,), features=(3, 2)[: len(features)])
    roles = Roles(("customer",), ("time",), ("action",), ("visit",))
    looks_at_rows = bool(rules.where) or rules.since is not None or rules.until is not None
    rules = Rules(since=-(1 << 62) if looks_at_rows else None, drop_duplicates=rules.drop_duplicates)
    plan = IngestPlan((file,), roles, TimeFormat("order"), {}, None, 1.0, 0, 1, None, Path(), {}, None, rules, features)
    parser = Parser(LookupTable(None), 1 << 20, rules, features)
    workspace = Workspace(len(rows))
    workspace.buffer[: len(rows)] = rows
    block = Block(0, 0, len(rows), workspace, len(rows) + _engine.SLACK)
    n_rows, block.n_lines, _ = _engine.scan(
        workspace.buffer, 0, len(rows), False, dialect.delimiter, -1, workspace.separators, workspace.row_stops
    )
    block.rows = (0, n_rows)
    parser.parse(block, make_layout(file, plan), parser.empty)
    vocabulary = Vocabulary()
    categories = Categories(features) if features else None
    run = cut_store(parser, vocabulary.publish(parser), None, categories)
    ids = None if categories is None else categories.rank()
    merge_buckets([run], vocabulary.rank().ranks, 0, N_BUCKETS, 1, ids)
