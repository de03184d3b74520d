"""Whether there is a psycopg 3; without it nothing is done, and nothing breaks."""

from __future__ import annotations


def why_no_psycopg() -> str:
    """Tell why psycopg 3 cannot be imported; return "" where it can.

    Django takes psycopg 2 then, if that is installed.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        return " ".join(str(error).split()) or "no reason given"
    return ""
