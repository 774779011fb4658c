"""Write the report: one page, made from the files of a model folder and from nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from luckyfast.errors import ModelError

__all__ = ["write_report"]


def write_report(model_folder: str | Path) -> Path:
    """Write ``report.html`` into a model folder: a self-contained page that opens offline.

    The page is a pure function of ``metrics.json``, ``curve.jsonl``, ``reliability.json``, ``explorer.json``,
    ``trials.jsonl`` and ``config.json``. A file that is absent leaves out its section.

    Args:
        model_folder: folder that ``luckyfast fit`` wrote.

    Returns:
        Path of the page.

    Raises:
        ModelError: the folder is missing, or one of its files is not readable as JSON.

    Example:
        >>> write_report(model_folder).name
        'report.html'
    """
    folder = Path(model_folder)
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}", hint="make one with: luckyfast fit DATASET")
    page = resources.files("luckyfast") / "page"
    content = {**json.loads((page / "glossary.json").read_text("utf-8")), **_content(folder)}
    style, script = (
        (page / "report.css").read_text("utf-8"),
        "\n".join((page / name).read_text("utf-8") for name in ("report.js", "explorer.js")),
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title = " · ".join(str(part) for part in ("luckyfast report", content["arch"], content["dataset"]["name"]) if part)
    # The script's hash is the only one the page may run, so not even a mistake here could run a name from a log.
    text = (page / "report.html").read_text("utf-8")
    for mark, value in (
        ("@@SCRIPT_HASH@@", f"sha256-{digest}"),
        ("@@TITLE@@", html.escape(title)),
        ("@@STYLE@@", style),
        ("@@SCRIPT@@", script),
        ("@@DATA@@", _embed(content)),  # last: the data may hold anything, marks included
    ):
        text = text.replace(mark, value)
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    return file


def _embed(content: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")


def _content(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json") or {}
    metrics = _read_json(folder / "metrics.json") or {}
    reliability = _read_json(folder / "reliability.json") or {}
    explorer = _read_json(folder / "explorer.json") or {}
    results = metrics.get("systems", [])
    dataset = config.get("dataset") or {}
    return {
        "arch": _arch_name(config),
        "version": str(config.get("luckyfast_version", "")),
        "time_kind": _time_kind(dataset.get("time") or {}, explorer),
        "systems": [_system(result, is_model=index == 0) for index, result in enumerate(results)],
        "parts": _parts(results),
        "short": _short(results),
        "reliability": _finite([bin_ for bin_ in reliability.get("bins", []) if bin_.get("n", 1)]),
        "curve": _finite(_read_lines(folder / "curve.jsonl")),
        "best_epoch": config.get("best_epoch"),
        "explorer": {"actions": explorer.get("actions", []), "customers": _finite(explorer.get("customers", []))},
        "trials": _trials(_read_lines(folder / "trials.jsonl")),
        "dataset": _making(config, dataset),
    }


def _time_kind(time: dict[str, Any], explorer: dict[str, Any]) -> str:
    """``clock``, ``order``, or ``days`` where times count from each customer's first visit."""
    return "days" if time.get("relative") else str(time.get("kind", explorer.get("time_kind", "clock")))


def _arch_name(config: dict[str, Any]) -> str:
    arch = str(config.get("arch", ""))
    return f"{arch} without habit" if arch and config.get("habit") is False else arch


def _system(result: dict[str, Any], *, is_model: bool) -> dict[str, Any]:
    return {
        "name": str(result["name"]),
        "model": is_model,
        "n_visits": result.get("n_visits"),
        "metrics": _values(result.get("figures")),
    }


def _values(figures: dict[str, Any] | None) -> dict[str, Any]:
    """Figures that are numbers, by name, as value, low and high."""
    cleaned = {name: _finite(figure) for name, figure in (figures or {}).items()}
    return {name: figure for name, figure in cleaned.items() if figure["value"] is not None}


def _parts(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The repeat and explore parts, each with one figure of every system."""
    parts = []
    for name in ("repeat", "explore"):
        sections = [result.get(name) or {} for result in results]
        figures = [_values(section.get("figures")) for section in sections]
        key = next((key for key in ("recall@10", "hit@1") if any(key in figure for figure in figures)), None)
        if key is None:
            continue
        rows = [
            {"name": str(result["name"]), "value": figure[key], "model": index == 0}
            for index, (result, figure) in enumerate(zip(results, figures, strict=True))
            if key in figure
        ]
        parts.append({"title": name.capitalize(), "metric": key, "n": sections[0].get("n_visits"), "rows": rows})
    return parts


def _short(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How the model does where the history is too short for the other figures."""
    short = (results[0].get("short") if results else None) or {}
    if not short.get("n_visits"):
        return None
    return {"n": short["n_visits"], "value": _values(short.get("figures")).get("hit@1")}


def _trials(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    trials = []
    for line in lines:
        loss = _finite(line.get("valid_loss"))
        if isinstance(loss, int | float):
            trials.append({"name": str(line["trial"]), "loss": loss})
    return trials


def _making(config: dict[str, Any], dataset: dict[str, Any]) -> dict[str, Any]:
    """What is said under 'How these figures were made'."""
    rejects = dataset.get("rejects_by_reason") or {}
    roles = dataset.get("roles") or {}
    calibration = config.get("calibration") or {}
    path = dataset.get("path") if isinstance(dataset.get("path"), str) else None
    settings = {
        "arch": config.get("arch"),
        "seed": config.get("seed"),
        **(config.get("model") or {}),
    }
    return {
        "name": Path(path).name if path else "",
        "path": path,
        "counts": dataset.get("counts"),
        "rejects": sorted(rejects.items(), key=lambda item: (-item[1], item[0])),
        "time": dataset.get("time"),
        "order_leak": bool((dataset.get("order_leak") or {}).get("suspicious")),
        "roles": [(f"{role} column", ", ".join(columns)) for role, columns in roles.items() if columns],
        "split": config.get("split"),
        "seen_ahead": _seen_ahead(dataset),
        "settings": [
            (name.replace("_", " "), _plain(value)) for name, value in settings.items() if value not in (None, "")
        ],
        "calibration": [
            (name.replace("_", " "), _spread(value) if name == "offsets" else _plain(value))
            for name, value in calibration.items()
        ],
    }


def _seen_ahead(dataset: dict[str, Any]) -> list[str]:
    """Rules of ingest that look at the whole log, the test with it."""
    rules = list(dataset.get("filtered_by_rule") or {})
    found = ["--min-visits"] if any(rule.startswith("min-visits") for rule in rules) else []
    return found + (["--top-actions"] if (dataset.get("other_actions") or {}).get("actions") else [])


def _spread(offsets: list[float]) -> str:
    """How far the offsets of single actions go, which are too many to be listed."""
    n_large = sum(abs(value) >= 0.05 for value in offsets)
    return f"{_plain(min(offsets))} to {_plain(max(offsets))}, {n_large:,} of them 0.05 or more" if offsets else "none"


def _plain(value: Any) -> str:
    """A setting as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    return str(value)


def _finite(value: Any) -> Any:
    """The same value with null in place of numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    return _parse(file, file.read_text(encoding="utf-8"))


def _read_lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    return [_parse(file, line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _parse(file: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{file} is damaged: {error}", hint="run luckyfast fit again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{file} is damaged: it holds no record", hint="run luckyfast fit again")
    return value
