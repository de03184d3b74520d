"""What ``manage.py pg_hot_preflight`` does.

`reading` gathers the facts of each side by the statements of `catalog`, `rows` those
of small tables; the modules named after what they look at compare them, most by tables
of `rules`; `report` puts their findings together, `output` writes it down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .facts import Wanted
    from .report import Report


def examine(
    blue: str,
    green: str | None,
    *,
    green_dsn: str | None = None,
    at_cutover: bool = False,
    also: Sequence[Wanted] = (),
) -> Report:
    """Read the servers of the aliases *blue* and *green*, and compare them.

    *green_dsn* says where green is instead of an alias, *also* names types to take for
    tracked. Raise `PreflightError` where that cannot be done.
    """
    # Here, since psycopg may be missing where the command is defined.
    from django.db import connections

    from .columns import model_tables
    from .reading import green_alias, open_side
    from .report import compare, require_two, wanted_types
    from .rows import read_rows

    wanted, tables = (*wanted_types(), *also), model_tables()
    names = [one.name for one in wanted]
    with (
        green_alias(blue, green, green_dsn) as other,
        open_side(blue) as here,
        open_side(other) as there,
    ):
        one = here.read(names)
        two = there.read(names, role=one.role)
        require_two(one, two)
        if at_cutover:
            one = here.let_slots_settle(one)
        rows = read_rows(here, there, one, two)
        settings = connections.settings[blue]
    return compare(one, two, rows, wanted, tables, settings, at_cutover=at_cutover)
