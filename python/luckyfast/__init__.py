"""luckyfast: from raw purchase logs larger than memory to a calibrated next-action predictor.

>>> import luckyfast
>>> sorted(luckyfast.__all__) == luckyfast.__all__
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luckyfast.comparison import evaluate as evaluate
    from luckyfast.dataset import Dataset as Dataset
    from luckyfast.errors import BudgetError as BudgetError
    from luckyfast.errors import ConservationError as ConservationError
    from luckyfast.errors import DatasetError as DatasetError
    from luckyfast.errors import InputError as InputError
    from luckyfast.errors import LuckyfastError as LuckyfastError
    from luckyfast.errors import ModelError as ModelError
    from luckyfast.errors import OutputExistsError as OutputExistsError
    from luckyfast.errors import SchemaError as SchemaError
    from luckyfast.errors import UserError as UserError
    from luckyfast.fitting import fit as fit
    from luckyfast.ingestion import ingest as ingest
    from luckyfast.model import Model as Model
    from luckyfast.model import load as load
    from luckyfast.prediction import predict as predict

# Everything is imported on first use: `import luckyfast` must not pay for torch, Numba or Arrow.
_HOMES = {
    "BudgetError": "errors",
    "ConservationError": "errors",
    "Dataset": "dataset",
    "DatasetError": "errors",
    "InputError": "errors",
    "LuckyfastError": "errors",
    "Model": "model",
    "ModelError": "errors",
    "OutputExistsError": "errors",
    "SchemaError": "errors",
    "UserError": "errors",
    "evaluate": "comparison",
    "fit": "fitting",
    "ingest": "ingestion",
    "load": "model",
    "predict": "prediction",
}

__version__ = "0.1.0"
__all__ = [*sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'luckyfast' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"luckyfast.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
