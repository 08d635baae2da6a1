"""A live experiment: one that this process logs to. Each module is one group of its calls; `headrace.experiment` joins them.

All of them write events to one journal (`handle`), and remember what they wrote (`known`), so that a training loop can ask for
parameters, properties, tags and last values without waiting for anybody.
"""
