"""What is sent to either side.

Every name is qualified, operators too, so that no ``search_path`` can put something
else in the place of the catalog's. Any role that can connect may send most of it.
"""

from __future__ import annotations

from django_pg_hot_async._core.catalog import FIRST_NORMAL_OID

SERVER = """\
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_backend_pid(),
       pg_catalog.current_schemas(false)::pg_catalog.text[],
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

COLUMNS = """\
SELECT wanted.name, a.attname::pg_catalog.text, a.atttypid::pg_catalog.int8,
       pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]),
                pg_catalog.unnest(%s::pg_catalog.text[]),
                pg_catalog.unnest(%s::pg_catalog.text[]))
     AS wanted(name, schema, relation)
JOIN pg_catalog.pg_class AS c ON c.relname OPERATOR(pg_catalog.=) wanted.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
AND CASE WHEN wanted.schema IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
         ELSE n.nspname OPERATOR(pg_catalog.=) wanted.schema END
ORDER BY wanted.name, a.attnum"""

EXTENSIONS = """\
SELECT e.extname::pg_catalog.text, e.extversion, n.nspname::pg_catalog.text
FROM pg_catalog.pg_extension AS e
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
ORDER BY e.extname"""

AVAILABLE = """\
SELECT a.name::pg_catalog.text, a.default_version
FROM pg_catalog.pg_available_extensions AS a
WHERE a.default_version IS NOT NULL"""

SYSTEM_IDENTIFIER = """\
SELECT c.system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system() AS c"""

PUBLICATIONS = """\
SELECT p.pubname::pg_catalog.text FROM pg_catalog.pg_publication AS p
ORDER BY p.pubname"""

SUBSCRIPTIONS = """\
SELECT s.subname::pg_catalog.text, s.subenabled, s.subpublications,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription_rel AS r
        WHERE r.srsubid OPERATOR(pg_catalog.=) s.oid
        AND r.srsubstate OPERATOR(pg_catalog.<>) 'r')
FROM pg_catalog.pg_subscription AS s
JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) s.subdbid
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
ORDER BY s.subname"""
