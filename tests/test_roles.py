"""Roles are found from names in English and French and from values; two equal candidates are asked for."""

from __future__ import annotations

import pytest

from luckyfast.errors import SchemaError
from luckyfast.ingestion.roles import (
    ColumnSample,
    choose_role,
    is_order_name,
    name_score,
    rank_candidates,
    split_words,
)

HEADERS = {
    "complete journey": (
        "household_id,store_id,basket_id,product_id,quantity,sales_value,retail_disc,coupon_disc,coupon_match_disc,week,"
        "transaction_timestamp,manufacturer_id,department,brand,product_category,product_type,package_size",
        ("household_id", "product_category", "basket_id"),
    ),
    "ta-feng": (
        "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE",
        ("CUSTOMER_ID", "PRODUCT_SUBCLASS", None),
    ),
    "online retail": (
        "InvoiceNo,StockCode,Category,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        ("CustomerID", "Category", "InvoiceNo"),
    ),
    "french tickets": (
        "date_achat,heure_achat,magasin,num_caisse,no_ticket,carte_fidelite,rayon,prix,quantite",
        ("carte_fidelite", "rayon", "no_ticket"),
    ),
    "french clients": (
        "id_client;Âge;date;Catégorie;panier;montant".replace(";", ","),
        ("id_client", "Catégorie", "panier"),
    ),
    "click stream": (
        "event_time,event_type,product_id,brand,price,user_id,user_session",
        ("user_id", "event_type", "user_session"),
    ),
    "groceries": ("order_id,user_id,order_number,order_dow,order_hour_of_day,aisle", ("user_id", "aisle", "order_id")),
    "bank": ("account,operation,dt,amount", ("account", "operation", None)),
}


def columns_of(header: str) -> list[ColumnSample]:
    """Columns whose values repeat as ids do; the roles must come from the names."""
    return [ColumnSample(name, ("A1", "A1", "A2", "A3", "A3", "A4")) for name in header.split(",")]


@pytest.mark.parametrize("log", HEADERS)
def test_roles_are_found_from_names(log: str) -> None:
    header, expected = HEADERS[log]
    columns = columns_of(header)
    taken: list[str] = []
    found = []
    for role in ("customer", "visit", "action"):
        chosen = choose_role(role, columns, taken=taken)
        found.append(chosen.name if chosen else None)
        taken += [chosen.name] if chosen else []
    customer, visit, action = found
    assert (customer, action, visit) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CustomerID", ["customer", "id"]),
        ("household_id", ["household", "id"]),
        ("N° de Client", ["n", "de", "client"]),
        ("CATÉGORIE", ["categorie"]),
        ("visitID2", ["visit", "id"]),
        ("", []),
    ],
)
def test_names_are_cut_into_words(name: str, words: list[str]) -> None:
    assert split_words(name) == words


def test_a_reason_names_the_word() -> None:
    assert name_score("customer", "household_id") == (9.0, '"household" in its name')


def test_equal_candidates_are_asked_for_with_samples_and_flags() -> None:
    columns = [
        ColumnSample("category", ("DAIRY", "MEAT")),
        ColumnSample("sub_commodity", ("CHEESE", "BEEF")),
        ColumnSample("price", ("1.5", "2.5")),
    ]
    with pytest.raises(SchemaError) as caught:
        choose_role("action", columns)
    assert caught.value.message.startswith("more than one column could be the action: category (DAIRY, MEAT, ...)")
    assert "CHEESE" in caught.value.message
    assert caught.value.hint == "add --action category or --action sub_commodity"


def test_a_flag_for_a_name_with_spaces_is_quoted() -> None:
    columns = [ColumnSample("client a", ("1", "2")), ColumnSample("client b", ("1", "2"))]
    with pytest.raises(SchemaError) as caught:
        choose_role("customer", columns)
    assert caught.value.hint == "add --customer 'client a' or --customer 'client b'"


def test_a_column_taken_by_another_role_is_no_candidate() -> None:
    columns = columns_of("customer_id,category")
    assert choose_role("customer", columns, taken=["customer_id"]) is None


def test_measures_dates_and_empty_columns_have_no_role() -> None:
    columns = [
        ColumnSample("customer_value", ("1.5", "2.25", "3.75")),
        ColumnSample("customer_since", ("2017-01-01", "2017-01-02", "2017-01-03")),
        ColumnSample("customer_code", ("", "", "")),
    ]
    assert rank_candidates("customer", columns) == []


def test_a_visit_has_one_customer() -> None:
    customer = ColumnSample("customer", ("a", "b", "c", "d", "a", "b"))
    till = ColumnSample("session", ("1", "1", "2", "2", "3", "3"))
    basket = ColumnSample("session", ("1", "2", "3", "4", "5", "6"))
    assert choose_role("visit", [customer, till]) is None
    assert choose_role("visit", [customer, basket]) is not None


def test_a_time_column_is_found_by_its_values_alone_if_they_are_unmistakable() -> None:
    columns = [ColumnSample("quand", ("2017-01-01 10:00", "2017-01-02 11:00")), ColumnSample("prix", ("1", "2"))]
    chosen = choose_role("time", columns)
    assert chosen is not None
    assert chosen.name == "quand"


def test_numbers_are_times_only_with_a_name_that_says_so() -> None:
    values = ("1483271606", "1514779280")
    assert choose_role("time", [ColumnSample("barcode", values)]) is None
    assert choose_role("time", [ColumnSample("event_ts", values)]) is not None


def test_six_digits_that_could_be_dates_of_any_order_are_so_only_with_a_name_that_says_so() -> None:
    values = ("110411", "110505", "110411", "110505")
    group = ColumnSample("PRODUCT_SUBCLASS", values)
    assert rank_candidates("time", [group]) == []
    chosen = choose_role("action", [group])
    assert chosen is not None
    assert chosen.name == "PRODUCT_SUBCLASS"
    assert [found.name for found in rank_candidates("time", [ColumnSample("date_achat", values)])] == ["date_achat"]


def test_two_dates_are_asked_for() -> None:
    values = ("2017-01-01", "2017-01-02")
    with pytest.raises(SchemaError, match=r"order_date.*ship_date"):
        choose_role("time", [ColumnSample("order_date", values), ColumnSample("ship_date", values)])


@pytest.mark.parametrize(
    ("name", "expected"), [("order_number", True), ("visit_no", True), ("sequence", True), ("order_id", False)]
)
def test_order_numbers_are_known_by_name(name: str, expected: bool) -> None:
    assert is_order_name(name) is expected
