"""The features of a run: the categories that its workers meet, how often, and the ids that they get in the end."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast.errors import DatasetError
from luckyfast.ingestion.merge import CategoryIds
from luckyfast.ingestion.partition import OTHER_ACTION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.ingestion.parse import Parser
    from luckyfast.ingestion.plan import Feature

__all__ = ["MOST_CATEGORIES", "Categories"]

MOST_CATEGORIES = 4096
"""So many categories of a feature keep their names, the most frequent; the others become one."""


class Categories:
    """All categories of a run, with ids in the order in which the workers meet them; features share the ids.

    Args:
        features: those of the plan.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self._ids: dict[bytes, int] = {}
        self._counts = np.zeros((len(features), 0), np.int64)
        self._lacks = np.zeros((len(features), 2), np.int64)
        self._lock = threading.Lock()

    @property
    def is_number(self) -> NDArray[np.int64]:
        """Per feature, whether it is a number."""
        return np.array([feature.kind == "number" for feature in self.features], np.int64)

    def publish(self, parser: Parser) -> NDArray[np.uint32]:
        """Ids for a worker's categories."""
        names = parser.categories
        stops, arena = names.stops, names.arena
        texts = [arena[stops[i] : stops[i + 1]].tobytes() for i in range(int(names.state[0]))]
        with self._lock:
            return self._take_in(texts)

    def count(self, ids: NDArray[np.uint32], counts: NDArray[np.int64], lacks: NDArray[np.int64]) -> None:
        """Add how often each feature has each category (by its place in `ids`), and events without a value."""
        with self._lock:
            self._counts[:, ids] += counts
            self._lacks += lacks

    def adopt(self, described: Sequence[Mapping[str, Any]]) -> list[NDArray[np.uint32]]:
        """Take in the features of a dataset; returns for each the ids of its categories, that of "no value" unused.

        Raises:
            DatasetError: categories were put together, so that what they were is gone.
        """
        found = []
        for k, own in enumerate(described):
            if own.get("other_categories", {}).get("categories"):
                raise DatasetError(
                    f"the feature {own['name']} has more than {MOST_CATEGORIES:,} categories, and the rarer ones were "
                    "put together from all rows at once: nothing can be added",
                    hint="ingest all raw files again",
                )
            ids = self._take_in([name.encode() for name in own.get("categories", [])])
            self._counts[k, ids] += np.array(own.get("n_events", []), np.int64)
            self._lacks[k] += own["without_value"], own["unreadable"]
            found.append(np.concatenate([np.zeros(1, np.uint32), ids]))
        return found

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays, for a checkpoint, which is written while the workers count on."""
        texts = list(self._ids)
        return {
            "categories": np.frombuffer(b"".join(texts), np.uint8),
            "category_sizes": np.array([len(text) for text in texts], np.int64),
            "category_counts": self._counts.copy(),
            "feature_lacks": self._lacks.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become what `to_arrays` has written down."""
        data, stops = state["categories"].tobytes(), np.cumsum(state["category_sizes"]).tolist()
        self._ids = {data[start:stop]: i for i, (start, stop) in enumerate(pairwise([0, *stops]))}
        self._counts, self._lacks = state["category_counts"], state["feature_lacks"]

    def rank(self) -> CategoryIds:
        """The final id of each category of each feature: from 1, in the order of names."""
        ranks = np.zeros((len(self.features), max(len(self._ids), 1)), np.int32)
        for k in range(len(self.features)):
            names, own, _ = self._named(k)
            final = {name: i for i, name in enumerate(names, start=1)}
            for i, name in own.items():
                ranks[k, i] = final[name]
        return CategoryIds(self.is_number, ranks)

    def describe(self) -> list[dict[str, Any]]:
        """What the manifest says of each feature; `categories[i]` has the id i + 1, 0 stands for no value."""
        described = []
        for k, feature in enumerate(self.features):
            lacks = {"without_value": int(self._lacks[k, 0]), "unreadable": int(self._lacks[k, 1])}
            own: dict[str, Any] = {"name": feature.name, "kind": feature.kind, **lacks}
            if feature.kind == "category":
                names, ids, others = self._named(k)
                n_of: dict[bytes, int] = dict.fromkeys(names, 0)
                for i, name in ids.items():
                    n_of[name] += int(self._counts[k, i])
                own |= {
                    "categories": [name.decode() for name in names],
                    "n_events": [n_of[name] for name in names],
                    "other_categories": others,
                }
            described.append(own)
        return described

    def _take_in(self, texts: Sequence[bytes]) -> NDArray[np.uint32]:
        ids = np.array([self._ids.setdefault(text, len(self._ids)) for text in texts], np.uint32)
        n_new = len(self._ids) - self._counts.shape[1]
        if n_new:
            self._counts = np.concatenate([self._counts, np.zeros((len(self.features), n_new), np.int64)], axis=1)
        return ids

    def _named(self, k: int) -> tuple[list[bytes], dict[int, bytes], dict[str, int]]:
        """The names of a feature's categories in order, that of each id, and what was put together."""
        texts = list(self._ids)
        counts = self._counts[k]
        used = np.flatnonzero(counts).tolist()
        if self.features[k].kind == "number":
            return [], {}, {}
        ranked = sorted(used, key=lambda i: (-counts[i], texts[i]))
        others = frozenset(ranked[MOST_CATEGORIES:])
        of_id = {i: OTHER_ACTION if i in others else texts[i] for i in used}
        n_events = int(counts[list(others)].sum()) if others else 0
        return sorted(set(of_id.values())), of_id, {"categories": len(others), "events": n_events}
