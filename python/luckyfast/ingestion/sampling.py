"""A sample of a source as text, and how its bytes must be read to get it."""

from __future__ import annotations

from dataclasses import replace

from luckyfast.ingestion.encodings import continued_encoding, detect_encoding, detect_line_end
from luckyfast.ingestion.plan import Source
from luckyfast.ingestion.sources import HEAD_BYTES, N_BLOCKS, Sample, read_sample

__all__ = ["sample_text"]

SMALL_HEAD_BYTES = 1 << 15


def sample_text(
    source: Source, encoding: str | None = None, *, full: bool, unless_utf8: bool = False
) -> tuple[Source, Sample, str]:
    """Sample a source as UTF-8 with line feeds.

    Args:
        source: what to read.
        encoding: its encoding, where the user gave it.
        full: look at later places too, and not only at the beginning.
        unless_utf8: `encoding` is that of earlier files: what is UTF-8 or UTF-16 by itself is read as such.

    Returns:
        The source with its encoding and line end, the sample, and where the encoding is not UTF-8, why.

    Raises:
        InputError: the file cannot be read, or its compressed data are damaged.
        SchemaError: several encodings fit.
    """
    size, n_blocks = (HEAD_BYTES, N_BLOCKS) if full else (SMALL_HEAD_BYTES, 0)
    sample = read_sample(source, head_bytes=size, n_blocks=n_blocks)
    pieces = (sample.head, *sample.blocks)
    if encoding is None:
        found, why = detect_encoding(source.label, pieces)
    else:
        found, why = continued_encoding(pieces, encoding) if unless_utf8 else (encoding, "as you said")
    if found != "utf-8":
        source = replace(source, encoding=found)
        sample = read_sample(source, head_bytes=size, n_blocks=n_blocks)
    if detect_line_end(sample.head) == "cr":
        source = replace(source, line_end="cr")
        sample = read_sample(source, head_bytes=size, n_blocks=n_blocks)
    return source, sample, why if found != "utf-8" else ""
