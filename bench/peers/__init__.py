"""Peers measured by the same ruler: each reads a dataset and its targets, and writes predictions for them.

The scripts run in an environment of their own, without luckyfast: they see the dataset's Arrow files and the targets
that `luckyfast evaluate --targets` wrote, and hand over a Parquet file of scores, which `luckyfast evaluate
--predictions` measures. `python -m luckyfast.bench.peers --python ENV/bin/python` does it all.
"""
