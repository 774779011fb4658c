"""Which columns hold the customer, the time, the action and the visit: scored from names and from values."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from luckyfast.errors import SchemaError
from luckyfast.ingestion.plan import TimeFormat
from luckyfast.ingestion.times import AmbiguousTimeError, find_time_format, is_time_of_day

__all__ = [
    "MIN_SCORE",
    "Candidate",
    "ColumnSample",
    "choose_role",
    "is_gap_name",
    "is_order_name",
    "name_score",
    "rank_candidates",
    "show_samples",
    "split_words",
    "suggest_flags",
]

MIN_SCORE = 4.0
MIN_LEAD = 2.0

# What a word in a column's name is worth for each role; the strongest word counts, and all that speak against it.
_WORDS: Mapping[str, Mapping[str, float]] = {
    "customer": {
        **dict.fromkeys(("household", "customer", "client", "cust", "shopper", "user", "member", "membre"), 8.0),
        **dict.fromkeys(("acheteur", "buyer", "visitor", "visiteur", "adherent", "foyer", "menage", "cardholder"), 8.0),
        **dict.fromkeys(("hshd", "consumer", "utilisateur", "abonne", "subscriber", "msno", "uid", "cid"), 8.0),
        **dict.fromkeys(("carte", "card", "loyalty", "fidelite", "account", "compte", "porteur", "patient"), 6.0),
        **dict.fromkeys(("person", "personne", "device", "cookie", "reviewer", "player"), 5.0),
        **dict.fromkeys(("age", "name", "nom", "prenom", "city", "ville", "type", "segment", "group", "groupe"), -6.0),
        **dict.fromkeys(("email", "country", "pays", "gender", "sexe", "zip", "postal", "birth", "naissance"), -6.0),
        **dict.fromkeys(("session", "order", "status", "statut", "category", "categorie", "date", "price"), -6.0),
    },
    "time": {
        **dict.fromkeys(("timestamp", "datetime", "horodatage", "dateheure", "ts", "dt", "dat"), 8.0),
        **dict.fromkeys(("date", "time", "jour", "day", "moment", "when", "quand", "tstamp", "at"), 6.0),
        **dict.fromkeys(("heure", "hour", "unixtime", "epoch"), 4.0),
        **dict.fromkeys(("birth", "naissance", "signup", "inscription", "expiry", "expiration", "updated"), -6.0),
        **dict.fromkeys(("delivery", "livraison", "load", "insert", "maj"), -4.0),
    },
    "action": {
        **dict.fromkeys(("category", "categorie", "subcategory", "subclass", "rayon", "famille", "family", "cat"), 8.0),
        **dict.fromkeys(("commodity", "aisle", "event", "action", "operation", "evenement", "activity"), 8.0),
        **dict.fromkeys(("page", "genre", "department", "departement", "dept", "section", "univers", "topic"), 6.0),
        **dict.fromkeys(("class", "classe", "segment", "type"), 4.0),
        **dict.fromkeys(("product", "produit", "item", "article", "sku", "stockcode", "libelle", "label"), 3.0),
        **dict.fromkeys(("track", "movie", "song", "url", "description"), 3.0),
        **dict.fromkeys(("age", "customer", "client", "user", "store", "magasin", "payment", "card", "carte"), -8.0),
        **dict.fromkeys(("time", "date", "price", "prix", "quantity", "quantite", "amount", "montant"), -8.0),
        **dict.fromkeys(("country", "pays", "brand", "marque", "size", "week", "year", "discount", "disc"), -8.0),
    },
    "visit": {
        **dict.fromkeys(("basket", "ticket", "invoice", "facture", "receipt", "panier", "session", "visit"), 8.0),
        **dict.fromkeys(("invoiceno", "invoicenumber", "recu", "visite", "bill", "cart", "checkout"), 8.0),
        **dict.fromkeys(("order", "commande", "transaction", "trans", "purchase", "achat", "tid"), 6.0),
        **dict.fromkeys(("caisse", "till", "register"), 3.0),
        **dict.fromkeys(("date", "time", "timestamp", "dt", "type", "status", "statut", "amount", "item"), -8.0),
        **dict.fromkeys(("dow", "hour", "line", "ligne", "position", "quantity", "total", "store", "count"), -8.0),
        **dict.fromkeys(("heure", "montant", "value", "price", "day", "jour"), -8.0),
    },
}
_KNOWN_WORDS = frozenset(word for words in _WORDS.values() for word in words)
_ID_WORDS = frozenset(("id", "no", "num", "number", "numero", "key", "code", "nr"))
_ORDER_WORDS = frozenset(("order", "sequence", "seq", "step", "rank", "visit", "session", "rang", "ordre"))
_ORDER_MARKS = frozenset(("number", "num", "no", "index", "idx", "rank", "numero", "seq", "sequence", "step", "ordre"))
_GAP_UNITS = frozenset(("days", "day", "jours", "jour"))
_GAP_MARKS = frozenset(("since", "prior", "previous", "depuis", "precedent", "precedente", "between", "entre"))
_FRACTION = re.compile(r"-?\d*[.,]\d*[1-9]\d*")


@dataclass(frozen=True)
class ColumnSample:
    """One column of the sampled rows: its name and its values, in the order of the rows, empty ones included."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """A column that may have a role: the higher the score the better; `reason` says why, for people."""

    name: str
    score: float
    reason: str


def rank_candidates(role: str, columns: Sequence[ColumnSample]) -> list[Candidate]:
    """Score every column for one role.

    Args:
        role: "customer", "time", "action" or "visit".
        columns: the sampled columns, all from the same rows.

    Returns:
        The candidates with a positive score, best first.

    Example:
        >>> columns = [ColumnSample("client_id", ("7", "7", "9")), ColumnSample("prix", ("1.5", "2", "3"))]
        >>> [(c.name, c.score) for c in rank_candidates("customer", columns)]
        [('client_id', 9.0)]
    """
    candidates = []
    for column in columns:
        from_name, said_by_name = name_score(role, column.name)
        if from_name <= 0 and role != "time":
            continue
        from_values, said_by_values = _value_score(role, column, columns)
        score = from_name + from_values
        if score > 0:
            reason = "; ".join(part for part in (said_by_name, said_by_values) if part)
            candidates.append(Candidate(column.name, score, reason))
    return sorted(candidates, key=lambda candidate: -candidate.score)


def choose_role(role: str, columns: Sequence[ColumnSample], *, taken: Sequence[str] = ()) -> Candidate | None:
    """Choose the column of a role, or say what cannot be told apart.

    Args:
        role: "customer", "time", "action" or "visit".
        columns: the sampled columns.
        taken: columns that have another role already.

    Returns:
        The column, or None if no column is good enough.

    Raises:
        SchemaError: two columns are about equally good; names them, sample values, and the flags to add.
    """
    ranked = [candidate for candidate in rank_candidates(role, columns) if candidate.name not in taken]
    if not ranked or ranked[0].score < MIN_SCORE:
        return None
    rivals = [candidate for candidate in ranked if candidate.score > ranked[0].score - MIN_LEAD]
    if len(rivals) > 1:
        rivals = rivals[:4]
        shown = ", ".join(show_samples(column) for r in rivals for column in columns if column.name == r.name)
        raise SchemaError(
            f"more than one column could be the {role}: {shown}",
            hint=suggest_flags(role, rivals),
        )
    return ranked[0]


def suggest_flags(role: str, candidates: Sequence[Candidate]) -> str:
    """The flags of which one settles a role."""
    return "add " + " or ".join(f"--{role} {_quote_flag(candidate.name)}" for candidate in candidates[:4])


def name_score(role: str, name: str) -> tuple[float, str]:
    """What a column's name says for a role: a score and a reason."""
    words = split_words(name)
    worth = _WORDS[role]
    speaking_for = [(worth[word], word) for word in words if worth.get(word, 0.0) > 0]
    against = sum(worth[word] for word in words if worth.get(word, 0.0) < 0)
    if not speaking_for:
        return against, ""
    best, word = max(speaking_for)
    is_id = role in ("customer", "visit") and (len(words) == 1 or bool(_ID_WORDS & set(words)))
    return best + is_id + against, f'"{word}" in its name'


def is_order_name(name: str) -> bool:
    """Whether a name such as order_number or sequence speaks of a place in an order rather than of an id."""
    words = split_words(name)
    return bool(set(words) & _ORDER_MARKS) and bool(set(words) & _ORDER_WORDS)


def is_gap_name(name: str) -> bool:
    """Whether a name such as days_since_prior_order speaks of the days between two visits."""
    words = set(split_words(name))
    return bool(words & _GAP_UNITS) and bool(words & _GAP_MARKS)


def split_words(name: str) -> list[str]:
    """The words of a column name in lower case without accents.

    Example:
        >>> split_words("InvoiceDate"), split_words("CATÉGORIE_produit2"), split_words("visitorid")
        (['invoice', 'date'], ['categorie', 'produit'], ['visitor', 'id'])
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    words = []
    for word in re.findall(r"[A-Za-z]+", spaced.replace("_", " ")):
        known = word.lower().removesuffix("id")
        words += [known, "id"] if known != word.lower() and known in _KNOWN_WORDS else [word.lower()]
    return words


def show_samples(column: ColumnSample, n_values: int = 3) -> str:
    """A column with some of its values, for a message."""
    values = list(dict.fromkeys(value for value in column.values if value))[:n_values]
    return f"{column.name} ({', '.join(value[:40] for value in values)}, ...)" if values else f"{column.name} (empty)"


def _value_score(role: str, column: ColumnSample, columns: Sequence[ColumnSample]) -> tuple[float, str]:
    filled = [value for value in column.values if value]
    if not filled:
        return -20.0, ""
    counts = Counter(filled)
    said = f"{len(counts):,} different values in {len(filled):,} sampled rows"
    if role == "time":
        return _time_score(column.name, filled)
    few = filled[:: len(filled) // 200 + 1]
    if _share(few, lambda value: _FRACTION.fullmatch(value) is not None) > 0.2 or _is_clock_time(few):
        return -20.0, ""
    many = len(filled) >= 50
    if role == "customer":
        return (-3.0 if many and len(counts) == 1 else 0.0), said
    if role == "action":
        penalty = -3.0 if many and len(counts) == 1 else -4.0 if many and len(counts) > 0.5 * len(filled) else 0.0
        return penalty, said
    return _visit_score(column.name, column.values, columns, said)


def _time_score(name: str, filled: Sequence[str]) -> tuple[float, str]:
    try:
        form = find_time_format(filled)
    except AmbiguousTimeError:
        speaks = not _are_digits(filled) or name_score("time", name)[0] > 0
        return (2.0, "its values are dates") if speaks else (-20.0, "")
    if form is None:
        return -20.0, ""
    if _is_digits_alone(form) and name_score("time", name)[0] <= 0:
        return -20.0, ""
    return 2.0 + 2.0 * form.has_clock + 2.0 * (form.kind == "iso"), "its values are times"


def _visit_score(name: str, values: Sequence[str], columns: Sequence[ColumnSample], said: str) -> tuple[float, str]:
    runs = [value for value, _ in groupby(value for value in values if value)]
    repeats = len(set(runs)) < sum(value != "" for value in values)
    owner = max(columns, key=lambda column: name_score("customer", column.name)[0])
    if owner.name != name and name_score("customer", owner.name)[0] > 0:
        owners: dict[str, set[str]] = {}
        for value, customer in zip(values, owner.values, strict=True):
            if value and customer:
                owners.setdefault(value, set()).add(customer)
        shared = sum(len(found) > 1 for found in owners.values())
        if shared > 0.2 * len(owners):
            return -8.0, ""
    # a number that counts a customer's visits gives way to an id
    return (1.0 if repeats else 0.0) - (3.0 if is_order_name(name) else 0.0), said


def _is_clock_time(filled: Sequence[str]) -> bool:
    try:
        form = find_time_format(filled)
    except AmbiguousTimeError:
        return not _are_digits(filled)
    if form is not None and not _is_digits_alone(form):
        return True
    return _share(filled, is_time_of_day) > 0.8


def _are_digits(filled: Sequence[str]) -> bool:
    """Whether nothing but digits is in them: six of them may be a date of any order, or a product group."""
    return all(value.isdecimal() for value in filled)


def _is_digits_alone(form: TimeFormat) -> bool:
    """Whether such times could be any numbers."""
    return form.kind == "epoch" or (form.kind in ("ymd", "dmy", "mdy") and form.date_separator is None)


def _share(values: Sequence[str], test: Callable[[str], bool]) -> float:
    return sum(test(value) for value in values) / len(values)


def _quote_flag(name: str) -> str:
    return f"'{name}'" if re.search(r"[^\w.\-]", name) else name
