"""Every error a user of luckyfast can meet, as one tree.

::

    LuckyfastError
    ├── UserError            something the user can mend; carries a hint; exit code 2
    │   ├── InputError       raw files that are missing, unreadable, damaged or no logs
    │   ├── SchemaError      columns, roles, types or formats that do not fit or are ambiguous
    │   ├── DatasetError     a dataset folder that is missing, incomplete, damaged or of another version
    │   ├── ModelError       a model folder, a history or a setting that a model cannot use
    │   ├── BudgetError      a time or memory budget in which the work cannot be done
    │   └── OutputExistsError  an output that would be overwritten
    └── ConservationError    rows were lost: a defect of luckyfast itself, never the user's; exit code 1
"""

from __future__ import annotations

import errno

__all__ = [
    "BudgetError",
    "ConservationError",
    "DatasetError",
    "InputError",
    "LuckyfastError",
    "ModelError",
    "OutputExistsError",
    "SchemaError",
    "UserError",
    "is_disk_full",
]


class LuckyfastError(Exception):
    """The root of all errors that luckyfast raises on purpose."""


class UserError(LuckyfastError):
    """Something the user can mend.

    Args:
        message: one sentence: what was expected, what was found, and where.
        hint: what to do about it, with the exact flag or command where there is one.

    Example:
        >>> raise UserError("no such file: receipts.csv", hint="check the path")
        Traceback (most recent call last):
        ...
        luckyfast.errors.UserError: no such file: receipts.csv (hint: check the path)
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class InputError(UserError):
    """Raw files that are missing, unreadable, damaged, or no logs at all."""


class SchemaError(UserError):
    """Columns, roles, types or formats that do not fit or cannot be told apart."""


class DatasetError(UserError):
    """A dataset folder that is missing, incomplete, damaged, or of another format version."""


class ModelError(UserError):
    """A model folder, a history, or a setting that a model cannot use."""


class BudgetError(UserError):
    """A time or memory budget in which the work cannot be done."""


class OutputExistsError(UserError):
    """An output that exists already and would be overwritten."""


class ConservationError(LuckyfastError):
    """Rows read do not equal rows accounted for: a defect of luckyfast itself."""


def is_disk_full(error: OSError) -> bool:
    """Whether the system has no room for what was to be written: a full disk, a quota, or a limit on files.

    Example:
        >>> is_disk_full(OSError(28, "No space left on device"))
        True
    """
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
