"""A search for a counter-example: a machine that does what deployments do.

`world` has the servers, `schema` what each holds; `promise` says what each level of
trust promises, without a look at how it is kept. `clients` are the connections,
`cursors` the ways to query over one, `gate` is a way to a pooler that moves between
messages, `processes` are other threads and children. `deployment` puts them together,
`comparison` compares what comes with what was promised. `traffic`, `operations`,
`tenants` and `widened` are what is done to it; `machine` does that in random order and
checks the invariants. `planted` are the faults that it has to find.

The invariants:

- I1: OIDs that a connection goes by were read from it, or ("server") from one to a
  server that looks the same and that nothing has contradicted since; none is
  registered on it.
- I2: evidence of a change withdraws trust from every connection of the alias: other
  OIDs, an unknown OID that is of a tracked type, a value that does not parse,
  `forget()`, and errors that a stale OID explains.
- I3: no lock is held while a server is asked; what is remembered is bounded.
- I4: where nothing can be read, what "server" would trust is used, and a warning
  logged; a read that fails is the database's own error.
- I5: nothing is done on an alias that is left to Django.
- I6: a type that a server lacks costs nothing until it is there.
"""
