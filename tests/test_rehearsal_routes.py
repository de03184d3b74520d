"""What of an alias's settings a rehearsal takes, and what it leaves."""

from __future__ import annotations

from typing import Any

import psycopg

from django_pg_hot_async.testing._routes import PLACE, SECURITY, elsewhere

# libpq's keywords that are about neither where to connect nor trust.
HOW = {
    "application_name",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "replication",
    "scram_client_key",
    "scram_server_key",
    "tcp_user_timeout",
}


def test_the_place_goes_and_the_manner_stays():
    settings: dict[str, Any] = {
        "ENGINE": "project.backend",
        "NAME": "shop",
        "USER": "shop",
        "PASSWORD": "secret",
        "HOST": "db.example",
        "PORT": "5433",
        "CONN_MAX_AGE": 60,
        "OPTIONS": {
            "sslmode": "verify-full",
            "sslrootcert": "/etc/ca.pem",
            "gssencmode": "require",
            "target_session_attrs": "read-write",
            "assume_role": "owner",
            "pool": {"min_size": 2},
            "options": "-c search_path=tenant",
            "server_side_binding": True,
        },
    }
    place = {"NAME": "default", "OPTIONS": {"service": "default"}}
    assert elsewhere(settings, **place) == {
        "ENGINE": "project.backend",
        "NAME": "default",
        "USER": "",
        "PASSWORD": "",
        "HOST": "",
        "PORT": "",
        "CONN_MAX_AGE": 60,
        "OPTIONS": {
            "pool": {"min_size": 2},
            "options": "-c search_path=tenant",
            "server_side_binding": True,
            "service": "default",
        },
    }
    assert settings["OPTIONS"]["sslmode"] == "verify-full"


def test_every_parameter_of_libpq_is_known():
    """A release of libpq with a new one asks here whether it is about the place."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    assert {"sslmode", "gssencmode", "krbsrvname", "host", "options"} <= known
    rest = {name for name in known if not name.startswith(SECURITY)}
    assert rest <= PLACE | HOW
