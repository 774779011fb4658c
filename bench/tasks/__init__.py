"""The benchmark tasks, one module each, with one object named TASK."""
