"""A search for a counter-example: a machine that does what deployments do.

`world` has the servers and what each holds; `promise` says what each level of trust
promises, without a look at how it is kept; `clients` are the connections; `machine`
puts them together, in random order, and compares.
"""
