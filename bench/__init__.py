"""Benchmarks: tasks x systems, every run in a process of its own, every result checked.

`task` says what a task is, `tasks/` holds them, `worker` runs one in a fresh process, `process` measures that process
and its descendants, `runner` puts the runs in order, `machine` says where they ran, `report` keeps and shows them.
"""
