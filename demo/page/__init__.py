"""The page on which one watches two fleets, and its buttons.

A Django project of its own, in the process that puts the load on: the workers have
no part in it. It acts on servers, so it answers this machine alone.
"""
