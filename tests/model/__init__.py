"""A search for a counter-example: a machine that does what deployments do.

`world` has the servers and what each holds; `promise` says what each level of trust
promises, without a look at how it is kept. `clients` are the connections, `cursors`
the ways to query over one, `processes` other threads and children. `deployment` puts
them together and compares what comes with what was promised; `traffic` and
`operations` are what is done to it, and `machine` does that in random order and
checks the invariants. `planted` are the bugs that it has to find.
"""
