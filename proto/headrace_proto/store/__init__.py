"""The store: paths, documents, parts and commits, over any back end that can create an object only if it is absent.

Only those who read or write a store import this package; it needs the `read` extra. A trainer never does.
"""
