"""The command `headrace`: run the parts on one machine, look at what they do and at what they stored.

One file a command. `main` imports only the one that is asked for, so that `headrace ls` does not wait for nats-py.
"""
