from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from luckyfast.errors import ModelError
from luckyfast.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & @@STYLE@@ \u2028"
)

DAY = 86_400_000_000


def figure(value: float) -> dict[str, float | None]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def result(name: str, value: float) -> dict[str, Any]:
    figures = {key: figure(value) for key in ("hit@1", "hit@3", "recall@10", "ndcg@10", "nll", "ece", "brier")}
    section = {"n_visits": 7, "figures": {"hit@1": figure(value), "recall@10": figure(value)}}
    none = {"n_visits": 0, "figures": {"hit@1": {"value": None, "low": None, "high": None}}}
    sections = {"repeat": section, "explore": section, "short": none}
    return {"name": name, "part": "test", "n_visits": 11, "figures": figures, **sections}


def explorer(name: str) -> dict[str, Any]:
    return {
        "time_kind": "clock",
        "actions": [name, "milk"],
        "customers": [
            {
                "customer": name,
                "n_visits": 3,
                "visits": [[0, [0]], [DAY, [0, 1]], [2 * DAY, [1]]],
                "predictions": [{"visit": 2, "n_before": 2, "top": [[0, 0.7], [1, 0.3]], "next": [[1, 2, 0.3]]}],
            }
        ],
    }


def config(name: str) -> dict[str, Any]:
    counts = {"rows_read": 5, "events": 4, "rejected": 1, "filtered": 0, "duplicates_removed": 0}
    return {
        "arch": "mlp",
        "habit": True,
        "model": {"hidden": 8, "name": name},
        "seed": 0,
        "split": {"valid_start": DAY, "test_start": 2 * DAY, "min_history": 2},
        "calibration": {"temperature": 1.0, "offsets": [0.0, -0.31, 0.0, 0.22]},
        "dataset": {
            "path": f"logs/{name}",
            "counts": {**counts, "customers": 1, "visits": 3, "actions": 2},
            "rejects_by_reason": {"bad_time": 1},
            "time": {"kind": "clock", "min": 0, "max": 2 * DAY},
            "roles": {"customer": [name], "visit": None},
        },
    }


def fill(folder: Path, name: str = "bread") -> Path:
    folder.mkdir(exist_ok=True)
    bins = [{"mean_predicted": 0.2, "observed": 0.21, "n": 50}, {"mean_predicted": 0.6, "observed": 0.58, "n": 50}]
    epoch = {"seconds": 2.0, "train_loss": 3.0, "valid_loss": 3.1, "valid_hit1": 0.3, "valid_hit3": 0.5}
    trials = [
        {"event": "end", "trial": trial, "rung": 0, "status": "ok", "valid_loss": loss}
        for trial, loss in ((0, 3.0), (1, None), (2, 2.5))
    ]
    files: dict[str, list[Any]] = {
        "metrics.json": [{"systems": [result(name, 0.4), result("popularity", 0.25)]}],
        "reliability.json": [{"bins": bins}],
        "explorer.json": [explorer(name)],
        "config.json": [config(name)],
        "curve.jsonl": [{"epoch": number, **epoch} for number in (1, 2, 3)],
        "trials.jsonl": trials,
    }
    for file, lines in files.items():
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


class Page(html.parser.HTMLParser):
    """What a browser sees before any script runs: elements with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.in_script = tag == "script"
        if self.in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False

    def handle_data(self, data: str) -> None:
        if self.in_script:
            self.scripts[-1] += data


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def browse(file: Path, profile: Path) -> str:
    """The page after its scripts ran; errors of the page are an error here."""
    assert CHROMIUM is not None
    flags = "no-sandbox disable-gpu disable-background-networking disable-component-update disable-sync no-first-run"
    options = [*flags.split(), "headless", "enable-logging=stderr", f"user-data-dir={profile}", "dump-dom"]
    command = [CHROMIUM, *(f"--{option}" for option in options), file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    problems = [line for line in done.stderr.splitlines() if "CONSOLE" in line or "Uncaught" in line]
    assert problems == []
    return done.stdout


def test_names_from_logs_never_become_markup(tmp_path: Path) -> None:
    page = read(fill(tmp_path / "model", EVIL))
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in [tag for tag, _ in page.elements]
    data = json.loads(page.scripts[0])
    assert data["systems"][0]["name"] == EVIL
    assert data["explorer"]["customers"][0]["customer"] == EVIL


def test_only_the_page_s_own_script_may_run_and_nothing_is_fetched(tmp_path: Path) -> None:
    page = read(fill(tmp_path / "model"))
    policy = next(attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [attributes for _, attributes in page.elements if {"src", "href", "action"} & set(attributes)]
    text = (tmp_path / "model" / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@@" not in text


def test_the_page_is_a_function_of_the_files(tmp_path: Path) -> None:
    first = write_report(fill(tmp_path / "a")).read_bytes()
    assert write_report(tmp_path / "a").read_bytes() == first
    assert write_report(fill(tmp_path / "b")).read_bytes() == first
    assert write_report(fill(tmp_path / "c", "butter")).read_bytes() != first


def test_figures_that_do_not_exist_are_left_out(tmp_path: Path) -> None:
    data = json.loads(read(fill(tmp_path / "model")).scripts[0])
    assert [trial["loss"] for trial in data["trials"]] == [3.0, 2.5]
    assert data["short"] is None
    assert [part["title"] for part in data["parts"]] == ["Repeat", "Explore"]


FILES = ("metrics.json", "curve.jsonl", "reliability.json", "explorer.json", "trials.jsonl", "config.json")


@pytest.mark.parametrize("absent", FILES)
def test_a_missing_file_leaves_out_its_section(tmp_path: Path, absent: str) -> None:
    whole = json.loads(read(fill(tmp_path / "model")).scripts[0])
    (tmp_path / "model" / absent).unlink()
    assert json.loads(read(tmp_path / "model").scripts[0]) != whole


def test_bad_folders_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        write_report(tmp_path / "nowhere")
    (fill(tmp_path / "model") / "metrics.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"metrics\.json is damaged"):
        write_report(tmp_path / "model")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_draws_itself_and_runs_no_foreign_script(tmp_path: Path) -> None:
    drawn = browse(write_report(fill(tmp_path / "model", EVIL)), tmp_path / "profile")
    title = re.search(r"<title>(.*?)</title>", drawn, re.DOTALL)
    assert title is not None
    assert title[1].startswith("luckyfast report")
    for section in ("systems", "parts", "reliability", "curve", "explorer", "trials", "making"):
        assert re.search(rf'<section id="{section}">', drawn), section
    assert drawn.count("<svg") >= 8
    assert "40.0 % of next visits" in drawn


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_training_that_was_validated_once_has_no_curve(tmp_path: Path) -> None:
    folder = fill(tmp_path / "model")
    line = {"epoch": 5, "passes": 4.97, "seconds": 2.0, "valid_loss": 3.1, "valid_hit1": 0.3, "valid_hit3": 0.5}
    (folder / "curve.jsonl").write_text(json.dumps(line) + "\n")
    drawn = browse(write_report(folder), tmp_path / "profile")
    said = "5 passes over the training visits in 2 s; validated once, after the last: loss 3.100 nats, "
    said += "ranked by score hit@1 30.0 %"
    assert said in drawn
    assert '<div id="curve-plot"></div>' in drawn


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_an_empty_folder_still_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    drawn = browse(write_report(tmp_path / "model"), tmp_path / "profile")
    assert "holds no measured figures" in drawn
    assert "<svg" not in drawn


def test_rules_that_looked_at_the_whole_log_are_said(tmp_path: Path) -> None:
    folder = fill(tmp_path / "model")
    made = json.loads(read(folder).scripts[0])["dataset"]
    assert made["seen_ahead"] == []
    assert made["calibration"] == [["temperature", "1"], ["offsets", "-0.31 to 0.22, 2 of them 0.05 or more"]]
    changed = config("bread")
    changed["dataset"] |= {"filtered_by_rule": {"min-visits 3": 12}, "other_actions": {"actions": 4, "events": 9}}
    changed["dataset"]["time"] |= {"relative": True, "visits_over_days": 1234}
    (folder / "config.json").write_text(json.dumps(changed))
    data = json.loads(read(folder).scripts[0])
    assert data["dataset"]["seen_ahead"] == ["--min-visits", "--top-actions"]
    assert data["time_kind"] == "days"
    if CHROMIUM is not None:
        page = browse(folder / "report.html", tmp_path / "profile")
        assert "Only --min-visits and --top-actions of the ingest looked at the whole log" in page
        assert "weights nor by popularity or calibration" in page
        assert "1,234 visits end on a later day than they begin." in page
        assert "test from</dt><dd>day " in page
        assert "2 configurations tried in 2 trainings" in page
