"""What Headrace's long-running parts share: settings, the broker, health, life cycle, logs. Needs the `service` extra.

A trainer never imports this package.
"""
