"""Fragments of the same customers, from any number of runs, to histories: visits in time order, distinct actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["add_up_gaps", "group_features", "group_visits", "number_customers", "place_fragments", "take_names"]

# Values of features that are none, and that of a row of a dataset whose category is no longer known.
NO_VALUE, MIXED = np.int64(-(1 << 63)), np.int64(-(1 << 63) + 2)
LARGEST = np.int64(10**18 - 1)
DAY = np.int64(86_400_000_000)
MOST_DAYS = np.int64(65_535)
ROWS, OTHERS = 0, 1


@njit(cache=True, nogil=True)
def is_less(names, starts, a, b):  # type: ignore[no-untyped-def]
    """Whether name `a` comes before name `b` by bytes."""
    i, j = starts[a], starts[b]
    i_stop, j_stop = starts[a + 1], starts[b + 1]
    while i < i_stop and j < j_stop:
        if names[i] != names[j]:
            return names[i] < names[j]
        i += 1
        j += 1
    return i == i_stop and j < j_stop


@njit(cache=True, nogil=True)
def number_customers(order, hashes, names, starts, place, distinct):  # type: ignore[no-untyped-def]
    """Give equal names one place, places in the order of (hash, bytes); returns their number.

    Args:
        order: int64, entries by hash; entries of equal hash get sorted by name.
        hashes: uint64 per entry.
        names: uint8; entry `i` is `names[starts[i]:starts[i + 1]]` (int64).
        place: uint32 per entry, written.
        distinct: int64, an entry for each place, written.
    """
    n_distinct = 0
    i = 0
    while i < len(order):
        stop = i + 1
        while stop < len(order) and hashes[order[stop]] == hashes[order[i]]:
            entry = order[stop]
            at = stop
            while at > i and is_less(names, starts, entry, order[at - 1]):
                order[at] = order[at - 1]
                at -= 1
            order[at] = entry
            stop += 1
        for at in range(i, stop):
            if at == i or is_less(names, starts, order[at - 1], order[at]):
                distinct[n_distinct] = order[at]
                n_distinct += 1
            place[order[at]] = n_distinct - 1
        i = stop
    return n_distinct


@njit(cache=True, nogil=True)
def place_fragments(customer, n_actions, place, starts, order, first_action):  # type: ignore[no-untyped-def]
    """Counting sort of fragments by their customer's place; `starts` is int64[n_places + 2], zeroed.

    Afterwards order[starts[p]:starts[p + 1]] are the fragments of place `p`, in the order in which they came.
    """
    first = 0
    for i in range(len(customer)):
        starts[place[customer[i]] + np.int64(2)] += 1
        first_action[i] = first
        first += n_actions[i]
    for p in range(2, len(starts)):
        starts[p] += starts[p - 1]
    for i in range(len(customer)):
        p = place[customer[i]] + np.int64(1)
        order[starts[p]] = i
        starts[p] += 1


@njit(cache=True, nogil=True)
def sort_visits(time, key, n, index, spare):  # type: ignore[no-untyped-def]
    """Merge sort of 0:n by (time, key) into `index`; stretches already in order cost one comparison."""
    for i in range(n):
        index[i] = i
    width = 8
    for low in range(0, n, width):
        for i in range(low + 1, min(low + width, n)):
            at = i
            while at > low:
                p = index[at - 1]
                if time[p] < time[i] or (time[p] == time[i] and key[p] <= key[i]):
                    break
                index[at] = p
                at -= 1
            index[at] = i
    while width < n:
        for low in range(0, n - width, 2 * width):
            middle, high = low + width, min(low + 2 * width, n)
            a, b = index[middle - 1], index[middle]
            if time[a] < time[b] or (time[a] == time[b] and key[a] <= key[b]):
                continue
            for i in range(low, middle):
                spare[i] = index[i]
            left, right, out = low, middle, low
            while left < middle and right < high:
                a, b = spare[left], index[right]
                if time[a] < time[b] or (time[a] == time[b] and key[a] <= key[b]):
                    index[out] = a
                    left += 1
                else:
                    index[out] = b
                    right += 1
                out += 1
            while left < middle:
                index[out] = spare[left]
                left += 1
                out += 1
        width *= 2


@intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """The number of the lowest bit set of a word that is not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


@njit(cache=True, nogil=True)
def sort_ids(ids, n, bits, used):  # type: ignore[no-untyped-def]
    """Sort ids[:n], which are distinct.

    PERF: the few actions of most visits by insertion. For more of them, they become bits in the order of their places,
    and a second set of bits tells which words have any: a tenth of the time of comparisons.

    Args:
        ids: int32.
        n: how many of them.
        bits: uint64, a bit for each id, all zero before and after.
        used: uint64, a bit for each word of `bits`, all zero before and after.
    """
    if n <= 4 or len(used) > 8 * n:
        gap = 1
        while gap * 3 + 1 < n and n > 12:
            gap = gap * 3 + 1
        while gap > 0:
            for i in range(gap, n):
                value = ids[i]
                at = i
                while at >= gap and ids[at - gap] > value:
                    ids[at] = ids[at - gap]
                    at -= gap
                ids[at] = value
            gap //= 3
        return
    one, low = np.uint64(1), np.uint64(63)
    for i in range(n):
        value = np.uint64(ids[i])
        word = value >> np.uint64(6)
        bits[word] |= one << (value & low)
        used[word >> np.uint64(6)] |= one << (word & low)
    at = 0
    for i in range(len(used)):
        words = used[i]
        used[i] = np.uint64(0)
        while words:
            word = np.uint64(i) * np.uint64(64) + trailing_zeros(words)
            words &= words - one
            rest = bits[word]
            bits[word] = np.uint64(0)
            while rest:
                ids[at] = np.int32(word * np.uint64(64) + trailing_zeros(rest))
                rest &= rest - one
                at += 1


@njit(cache=True, nogil=True)
def group_visits(  # type: ignore[no-untyped-def]
    starts, order, time, key, first_action, n_actions, actions, ranks, n_visits, n_customer_pairs, visits, pairs
):
    """Write the histories of all places; returns the numbers of visits and of pairs.

    Args:
        starts, order: from `place_fragments`.
        time, key, first_action, n_actions: of each fragment.
        actions: ids of the run, `ranks` their final ids.
        n_visits, n_customer_pairs: int64 per place, written.
        visits: (time int64, key uint64, days uint16, number of pairs int64), with room for as many visits as fragments;
            days lie between a visit's first row and its last, each fragment being of one day.
        pairs: (action int32, count int32), with room for all actions.
    """
    visit_time, visit_key, visit_days, visit_pairs = visits
    pair_action, pair_count = pairs
    most = 0
    for p in range(len(n_visits)):
        most = max(most, starts[p + 1] - starts[p])
    table_size = 4
    while table_size < 2 * most:
        table_size *= 2
    table = np.zeros(table_size, np.int32)
    own_time, own_key, own_last = np.empty(most, np.int64), np.empty(most, np.uint64), np.empty(most, np.int64)
    head, tail, chain = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    index, spare = np.empty(most, np.int64), np.empty(most, np.int64)
    n_of_action = np.zeros(len(ranks) + 1, np.int32)
    ids = np.empty(min(len(ranks), len(actions)) + 1, np.int32)
    bits = np.zeros((len(ranks) >> 6) + 1, np.uint64)
    used = np.zeros((len(bits) >> 6) + 1, np.uint64)

    n_all_visits = 0
    n_all_pairs = 0
    for p in range(len(n_visits)):
        first, n = starts[p], starts[p + 1] - starts[p]
        # fragments of one key become one visit; keys are hashes already, so their low bits are the slot
        size = 4
        while size < 2 * n:
            size *= 2
        mask = np.uint64(size - 1)
        table[:size] = 0
        n_own = 0
        for i in range(n):
            fragment = order[first + i]
            k, t = key[fragment], time[fragment]
            chain[i] = -1
            slot = k & mask
            while table[slot] != 0 and own_key[table[slot] - 1] != k:
                slot = (slot + np.uint64(1)) & mask
            if table[slot] == 0:
                own_key[n_own], own_time[n_own], own_last[n_own] = k, t, t
                head[n_own] = tail[n_own] = i
                n_own += 1
                table[slot] = n_own
            else:
                v = table[slot] - 1
                own_time[v], own_last[v] = min(own_time[v], t), max(own_last[v], t)
                chain[tail[v]] = i
                tail[v] = i
        sort_visits(own_time, own_key, n_own, index, spare)
        first_pair = n_all_pairs
        for i in range(n_own):
            v = index[i]
            n_distinct = 0
            at = head[v]
            while at >= 0:
                fragment = order[first + at]
                begin = first_action[fragment]
                for k in range(begin, begin + n_actions[fragment]):
                    action = np.uint32(ranks[actions[k]])
                    # PERF: no branch, since none could foresee which action comes again
                    n_before = n_of_action[action]
                    ids[n_distinct] = action
                    n_distinct += n_before == 0
                    n_of_action[action] = n_before + 1
                at = chain[at]
            sort_ids(ids, n_distinct, bits, used)
            for k in range(n_distinct):
                pair_action[n_all_pairs + k] = ids[k]
                pair_count[n_all_pairs + k] = n_of_action[ids[k]]
                n_of_action[ids[k]] = 0
            visit_time[n_all_visits], visit_key[n_all_visits] = own_time[v], own_key[v]
            visit_days[n_all_visits] = min(own_last[v] // DAY - own_time[v] // DAY, MOST_DAYS)
            visit_pairs[n_all_visits] = n_distinct
            n_all_visits += 1
            n_all_pairs += n_distinct
        n_visits[p] = n_own
        n_customer_pairs[p] = n_all_pairs - first_pair
    return n_all_visits, n_all_pairs


@njit(cache=True, nogil=True)
def add_up_gaps(n_visits, time, gap_bits, day, state):  # type: ignore[no-untyped-def]
    """Add to each time the days from the customer's first visit on; visits of one number have one day.

    Args:
        n_visits: int64 per customer.
        time: int64 per visit in order, number << gap_bits | most - days since the number before; changed.
        gap_bits: how many bits the days have; of visits of one number the first has the most days.
        day: what a day adds.
        state: int64[2], number of the visit before (-1: none) and its day, of the first customer; of the last, written.
    """
    most = (np.int64(1) << gap_bits) - 1
    number, days = state[0], state[1]
    at = 0
    for p in range(len(n_visits)):
        if p > 0:
            number, days = -1, 0
        for _ in range(n_visits[p]):
            own = time[at] >> gap_bits
            if own != number:
                if number >= 0:
                    days += most - (time[at] & most)
                number = own
            time[at] += days * day
            at += 1
    state[0], state[1] = number, days


@njit(cache=True, nogil=True)
def take_names(names, starts, order, out):  # type: ignore[no-untyped-def]
    """The names in order, one after another."""
    at = 0
    for i in range(len(order)):
        for k in range(starts[order[i]], starts[order[i] + 1]):
            out[at] = names[k]
            at += 1


@njit(cache=True, nogil=True)
def group_features(  # type: ignore[no-untyped-def]
    starts, order, key, first_action, n_actions, values, is_number, ranks, n_visits, visit_key, out, rows
):
    """Put together the features of each visit's rows, whatever their order; returns how many visits cannot be.

    A number becomes the sum of its rows, exact and cut off at 18 digits; a category the most frequent one, of equally
    frequent the one with the smallest id. A visit cannot be put together if rows in it are MIXED and others came.

    Args:
        starts, order: from `place_fragments`.
        key, first_action, n_actions: of each fragment.
        values: int64, one entry per feature for each action: millionths, an id of the run, NO_VALUE or MIXED.
        is_number: int64 per feature.
        ranks: int32[n_features, n_ids], final ids of categories, from 1.
        n_visits: int64 per place; visit_key: uint64 per visit, from `group_visits`.
        out: int64[n_visits, n_features], written: the number or the category, 0 where there is none.
        rows: int32[n_visits, n_features, 2], written: how many ROWS have it (of a number: have any), how many OTHERS.
    """
    n_features = len(is_number)
    most, most_fragments, n_categories = 0, 0, 0
    for p in range(len(n_visits)):
        most = max(most, n_visits[p])
        most_fragments = max(most_fragments, starts[p + 1] - starts[p])
    for k in range(n_features):
        for i in range(ranks.shape[1]):
            n_categories = max(n_categories, ranks[k, i])
    table_size = 4
    while table_size < 2 * most:
        table_size *= 2
    table = np.zeros(table_size, np.int32)
    head, chain = np.empty(most, np.int64), np.empty(most_fragments, np.int64)
    n_of, met = np.zeros(n_categories + 1, np.int64), np.empty(n_categories + 1, np.int64)
    n_torn = 0
    first_visit = 0
    for p in range(len(n_visits)):
        first, n, n_own = starts[p], starts[p + 1] - starts[p], n_visits[p]
        size = 4
        while size < 2 * n_own:
            size *= 2
        mask = np.uint64(size - 1)
        table[:size] = 0
        for v in range(n_own):
            slot = visit_key[first_visit + v] & mask
            while table[slot] != 0:
                slot = (slot + np.uint64(1)) & mask
            table[slot] = v + 1
            head[v] = -1
        for i in range(n):
            own_key = key[order[first + i]]
            slot = own_key & mask
            while visit_key[first_visit + table[slot] - 1] != own_key:
                slot = (slot + np.uint64(1)) & mask
            v = table[slot] - 1
            chain[i] = head[v]
            head[v] = i
        for v in range(n_own):
            is_torn = False
            for k in range(n_features):
                n_rows = n_mixed = n_met = n_fragments = 0
                # in two halves, no sum of 2 ** 31 rows can overflow
                high = low = np.int64(0)
                at = head[v]
                while at >= 0:
                    fragment = order[first + at]
                    # without actions it tells of the visit's last day alone
                    n_fragments += n_actions[fragment] > 0
                    begin = first_action[fragment] * n_features + k
                    for e in range(n_actions[fragment]):
                        value = values[begin + e * n_features]
                        if value == NO_VALUE:
                            continue
                        if value == MIXED:
                            n_mixed += 1
                            continue
                        n_rows += 1
                        if is_number[k] != 0:
                            high += value >> np.int64(32)
                            low += value & np.int64(0xFFFFFFFF)
                        else:
                            rank = ranks[k, value]
                            if n_of[rank] == 0:
                                met[n_met] = rank
                                n_met += 1
                            n_of[rank] += 1
                    at = chain[at]
                is_torn |= n_mixed > 0 and n_fragments > 1
                if is_number[k] != 0:
                    high += low >> np.int64(32)
                    low &= np.int64(0xFFFFFFFF)
                    if abs(high) > 1 << 28:
                        total = LARGEST if high > 0 else -LARGEST
                    else:
                        total = min(max((high << np.int64(32)) + low, -LARGEST), LARGEST)
                    out[first_visit + v, k] = total
                    rows[first_visit + v, k, ROWS], rows[first_visit + v, k, OTHERS] = n_rows, 0
                    continue
                best, n_best = np.int64(0), np.int64(0)
                for i in range(n_met):
                    rank = met[i]
                    if n_of[rank] > n_best or (n_of[rank] == n_best and rank < best):
                        best, n_best = rank, n_of[rank]
                    n_of[rank] = 0
                out[first_visit + v, k] = best
                rows[first_visit + v, k, ROWS], rows[first_visit + v, k, OTHERS] = n_best, n_rows - n_best + n_mixed
            n_torn += is_torn
        first_visit += n_own
    return n_torn
