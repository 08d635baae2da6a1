"""The contracts of Headrace: what every other part agrees on, and nothing that any one part decides.

The root modules need only msgpack and the standard library, because a trainer imports them.
`headrace_proto.store` needs the `read` extra (fsspec, pyarrow, pydantic): only who reads or writes a store imports it.
"""
