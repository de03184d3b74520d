"""What is read of each side as a server: roles, settings, extensions, replication."""

from __future__ import annotations

from .query import USERS, Query

MAX_SLOW = 300
"""Seconds after which a transaction is a long one."""

SERVERS = {
    "roles": Query(
        """\
SELECT r.rolname::text AS name, r.rolname = current_user AS is_current,
       r.rolsuper AS super, r.rolbypassrls AS bypass, r.rolcanlogin AS login,
       r.rolconnlimit AS connections,
       coalesce(r.rolvaliduntil < now(), false) AS expired,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members AS m
             JOIN pg_roles AS g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY 1) AS groups
FROM pg_roles AS r WHERE r.rolname !~ '^pg_'""",
        "roles",
    ),
    # A release that has no such column has no such key in JSON.
    "database": Query(
        """\
SELECT 'database' AS name, pg_encoding_to_char(d.encoding) AS encoding,
       d.datcollate::text AS collate, d.datctype::text AS ctype,
       coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', '')
           AS locale,
       to_jsonb(d) ->> 'datcollversion' AS recorded,
       d.datconnlimit AS connections,
       has_database_privilege(%(role)s::name, d.oid, 'CREATE') AS may_create,
       has_database_privilege(%(role)s::name, d.oid, 'TEMPORARY') AS may_temp,
       has_database_privilege(%(role)s::name, d.oid, 'CONNECT') AS may_connect
FROM pg_database AS d WHERE d.datname = current_database()""",
        "the database",
    ),
    "collation": Query(
        """\
SELECT 'database' AS name, pg_database_collation_actual_version(d.oid) AS actual
FROM pg_database AS d WHERE d.datname = current_database()""",
        "the version of the collation",
        since=15,
    ),
    "collations": Query(
        f"""\
SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname) AS name,
       l.collversion AS recorded, pg_collation_actual_version(l.oid) AS actual
FROM pg_collation AS l JOIN pg_namespace AS n ON n.oid = l.collnamespace
WHERE l.collversion IS NOT NULL AND ({USERS} OR l.oid IN (
    SELECT a.attcollation FROM pg_attribute AS a WHERE a.attrelid >= 16384))""",
        "versions of collations",
    ),
    # What a connection begins with: Django sets some for itself.
    "settings": Query(
        """\
SELECT s.name, s.reset_val AS value, coalesce(s.boot_val, '') AS boot,
       coalesce(s.unit, '') AS unit, s.source IN ('database', 'user', 'database user')
           AS is_own
FROM pg_settings AS s WHERE s.reset_val IS NOT NULL""",
        "settings",
    ),
    "role_settings": Query(
        """\
SELECT coalesce(quote_ident(r.rolname), '') || ' ' || split_part(item, '=', 1) AS name,
       coalesce(r.rolname::text, '') AS role, split_part(item, '=', 1) AS setting,
       -- A role's own setting in this database wins, then the role's, the database's.
       (array_agg(substr(item, strpos(item, '=') + 1)
                  ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC))[1] AS value
FROM pg_db_role_setting AS s LEFT JOIN pg_roles AS r ON r.oid = s.setrole,
     unnest(s.setconfig) AS item
WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d
                            WHERE d.datname = current_database()))
AND (s.setrole = 0 OR r.rolname IS NOT NULL)
GROUP BY 1, 2, 3""",
        "settings of roles and databases",
    ),
    "extensions": Query(
        """\
SELECT e.extname::text AS name, e.extversion AS version, n.nspname::text AS schema
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
ORDER BY e.extname""",
        "extensions",
    ),
    "available": Query(
        """\
SELECT a.name::text AS name, a.default_version AS version
FROM pg_available_extensions AS a WHERE a.default_version IS NOT NULL""",
        "available extensions",
    ),
    "system": Query(
        """\
SELECT 'system' AS name, c.system_identifier::text AS identifier
FROM pg_control_system() AS c""",
        "the system identifier",
    ),
    "publications": Query(
        """\
SELECT p.pubname::text AS name, p.puballtables AS everything, p.pubviaroot AS via_root,
       ARRAY(SELECT w FROM (VALUES ('insert', p.pubinsert), ('update', p.pubupdate),
                            ('delete', p.pubdelete), ('truncate', p.pubtruncate))
             AS o (w, is_on) WHERE NOT o.is_on) AS left_out
FROM pg_publication AS p""",
        "publications",
    ),
    "published": Query(
        """\
SELECT p.pubname || ' ' || quote_ident(p.schemaname) || '.' || quote_ident(p.tablename)
           AS name, p.pubname::text AS publication,
       quote_ident(p.schemaname) || '.' || quote_ident(p.tablename) AS "table",
       to_jsonb(p) ->> 'rowfilter' AS filter,
       -- From 15 on; before, all of them.
       ARRAY(SELECT jsonb_array_elements_text(to_jsonb(p) -> 'attnames')) AS columns
FROM pg_publication_tables AS p""",
        "published tables",
        locks=True,
    ),
    "subscriptions": Query(
        """\
SELECT s.subname::text AS name, s.subenabled AS enabled,
       s.subpublications AS publications, s.subslotname::text AS slot,
       w.pid, pg_wal_lsn_diff(w.received_lsn, w.latest_end_lsn)::int8 AS unconfirmed
FROM pg_subscription AS s
JOIN pg_database AS d ON d.oid = s.subdbid AND d.datname = current_database()
LEFT JOIN pg_stat_subscription AS w ON w.subid = s.oid AND w.relid IS NULL
     -- Apply workers that help another one have that one as their leader.
     AND coalesce(to_jsonb(w) ->> 'leader_pid', '') = ''""",
        "subscriptions",
    ),
    "subscribed": Query(
        """\
SELECT s.subname || ' ' || r.srrelid::regclass::text AS name,
       s.subname::text AS subscription, quote_ident(n.nspname) || '.'
           || quote_ident(c.relname) AS "table", r.srsubstate::text AS state
FROM pg_subscription_rel AS r JOIN pg_subscription AS s ON s.oid = r.srsubid
JOIN pg_class AS c ON c.oid = r.srrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace""",
        "tables of subscriptions",
    ),
    "subscription_errors": Query(
        """\
SELECT s.subname::text AS name, s.apply_error_count + s.sync_error_count AS errors,
       (SELECT coalesce(sum(value::text::int8), 0) FROM jsonb_each(to_jsonb(s))
        WHERE key IN ('confl_update_missing', 'confl_delete_missing',
                      'confl_update_origin_differs', 'confl_delete_origin_differs'))
           ::int8 AS conflicts
FROM pg_stat_subscription_stats AS s""",
        "errors of subscriptions",
        since=15,
    ),
    "slots": Query(
        """\
SELECT s.slot_name::text AS name, s.active, coalesce(s.wal_status, '') AS status,
       s.database IS NOT DISTINCT FROM current_database()::name AS is_here,
       CASE WHEN NOT pg_is_in_recovery() THEN
           -- Less than nothing: it has got past where blue was when this began.
           greatest(pg_wal_lsn_diff(%(lsn)s::pg_lsn, s.confirmed_flush_lsn), 0)::int8
           END AS behind,
       CASE WHEN NOT pg_is_in_recovery() THEN
           pg_wal_lsn_diff(%(lsn)s::pg_lsn, s.restart_lsn)::int8 END AS kept
FROM pg_replication_slots AS s""",
        "replication slots",
    ),
    "prepared": Query(
        """\
SELECT p.gid AS name, p.owner::text AS owner, p.prepared::text AS since
FROM pg_prepared_xacts AS p WHERE p.database = current_database()""",
        "prepared transactions",
    ),
    "transactions": Query(
        f"""\
SELECT a.pid::text AS name, a.usename::text AS role, a.application_name AS application,
       coalesce((extract(epoch FROM now() - a.xact_start) / 60)::int8, 0) AS minutes,
       coalesce(a.xact_start < now() - interval '{MAX_SLOW} seconds', false) AS is_long,
       l.pid IS NOT NULL AS writes
FROM pg_stat_activity AS a
-- Whoever has written holds a lock of its transaction's number, which all may see.
LEFT JOIN pg_locks AS l ON l.pid = a.pid AND l.locktype = 'transactionid'
AND l.mode = 'ExclusiveLock'
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
AND coalesce(a.backend_type, 'client backend') = 'client backend'""",
        "long transactions",
    ),
    "large_objects": Query(
        """\
SELECT 'large objects' AS name, count(*) AS number FROM pg_largeobject_metadata""",
        "large objects",
    ),
}
