"""How each peer logs, ends, is read and is searched, in the way its own documentation recommends. One file a peer."""
