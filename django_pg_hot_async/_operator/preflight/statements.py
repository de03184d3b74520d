"""What is sent to either side.

Every name is qualified, operators too, so that no ``search_path`` can put something
else in the place of the catalog's. Any role that can connect may send most of it.
"""

from __future__ import annotations

from django_pg_hot_async._core.catalog import FIRST_NORMAL_OID

# Another user's settings are not to cut these statements off, nor is a lock to hold
# them for ever. After the transaction all is as it was.
LIMITS = """\
SELECT pg_catalog.set_config('statement_timeout', '60s', true),
       pg_catalog.set_config('lock_timeout', '1s', true),
       pg_catalog.set_config('idle_in_transaction_session_timeout', '60s', true)"""

# Whatever comes after prints names with their schemas, and finds only PostgreSQL's own.
PATH = """\
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_current_wal_lsn()::pg_catalog.text END,
       EXISTS (SELECT FROM pg_catalog.pg_roles AS r
               WHERE r.rolname OPERATOR(pg_catalog.=) %s::pg_catalog.name)"""

SERVER = """\
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_backend_pid(),
       pg_catalog.current_schemas(false)::pg_catalog.text[],
       CURRENT_USER::pg_catalog.text,
       EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.text,
       d.oid::pg_catalog.text
FROM pg_catalog.pg_database AS d
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"""

# The types of extensions and of users, and whatever is called as a tracked one is.
# Row types of tables are left out, but for the latter; so are arrays.
TYPES = f"""\
SELECT t.typname::pg_catalog.text, n.nspname::pg_catalog.text,
       pg_catalog.format_type(t.oid, NULL),
       t.oid::pg_catalog.int8, t.typarray::pg_catalog.int8,
       t.typtype::pg_catalog.text, pg_catalog.pg_type_is_visible(t.oid),
       e.extname::pg_catalog.text, t.typbasetype::pg_catalog.int8,
       CASE WHEN t.typtype OPERATOR(pg_catalog.=) 'e' THEN ARRAY(
           SELECT l.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum AS l
           WHERE l.enumtypid OPERATOR(pg_catalog.=) t.oid ORDER BY l.enumsortorder)
       WHEN t.typtype OPERATOR(pg_catalog.=) 'c' THEN ARRAY(
           SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute AS a
           WHERE a.attrelid OPERATOR(pg_catalog.=) t.typrelid
           AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
           ORDER BY a.attnum) END,
       CASE WHEN t.typtype OPERATOR(pg_catalog.=) 'c' THEN ARRAY(
           SELECT pg_catalog.format_type(a.atttypid, a.atttypmod)
           FROM pg_catalog.pg_attribute AS a
           WHERE a.attrelid OPERATOR(pg_catalog.=) t.typrelid
           AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
           ORDER BY a.attnum)
       WHEN t.typtype OPERATOR(pg_catalog.=) 'd' THEN
           ARRAY[pg_catalog.format_type(t.typbasetype, t.typtypmod)]
       ELSE ARRAY(
           SELECT pg_catalog.format_type(r.rngsubtype, NULL)
           FROM pg_catalog.pg_range AS r
           WHERE r.rngtypid OPERATOR(pg_catalog.=) t.oid
           OR r.rngmultitypid OPERATOR(pg_catalog.=) t.oid) END
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.typrelid
LEFT JOIN pg_catalog.pg_depend AS d
ON d.objid OPERATOR(pg_catalog.=) t.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
AND d.refclassid
    OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
LEFT JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
WHERE (t.typname OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[])
       OR (t.oid OPERATOR(pg_catalog.>=) {FIRST_NORMAL_OID}
           AND (c.oid IS NULL OR c.relkind OPERATOR(pg_catalog.=) 'c')))
AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS element
                WHERE element.typarray OPERATOR(pg_catalog.=) t.oid)
ORDER BY n.nspname, t.typname"""
