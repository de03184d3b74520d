"""What is read of each side: one statement a kind of object, none of them long.

They run with ``search_path = pg_catalog, pg_temp``: a name leads where it should, and
the server prints every other name with its schema. The first column of each is the
name of the object, in SQL; the columns after it are its facts. What belongs to an
extension is left to the extension.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SLOW = 300
"""Seconds after which a transaction is a long one."""


@dataclass(frozen=True, slots=True)
class Query:
    """One statement, and what is known of it."""

    sql: str
    what: str
    """What it reads, in words: for where it cannot be read."""
    since: int = 0
    """The first release of PostgreSQL that can answer it; before, there is nothing."""
    locks: bool = False
    """Whether it locks tables in ACCESS SHARE mode, which the caller then undoes."""


def _no_member(catalog: str, oid: str) -> str:
    return f"""NOT EXISTS (
    SELECT FROM pg_depend AS member WHERE member.objid = {oid}
    AND member.classid = '{catalog}'::regclass AND member.deptype = 'e')"""


_USERS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_NAME = "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"

QUERIES = {
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
WHERE l.collversion IS NOT NULL AND ({_USERS} OR l.oid IN (
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
    "schemas": Query(
        f"""\
SELECT quote_ident(n.nspname) AS name, n.nspname::text AS plain,
       has_schema_privilege(%(role)s::name, n.oid, 'USAGE') AS usage,
       has_schema_privilege(%(role)s::name, n.oid, 'CREATE') AS may_create
FROM pg_namespace AS n WHERE {_USERS}""",
        "schemas",
    ),
    "relations": Query(
        f"""\
SELECT {_NAME} AS name, n.nspname::text AS schema, c.relname::text AS relation,
       c.relkind::text AS kind, c.relpersistence = 'u' AS unlogged,
       c.relispopulated AS populated, c.relrowsecurity AS rls,
       c.relforcerowsecurity AS forced, c.relreplident::text AS identity,
       c.reltuples::float8 AS tuples, c.relpages + coalesce(t.relpages, 0) AS pages,
       CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END AS key,
       i.inhparent::regclass::text AS parent,
       (SELECT count(*) FROM pg_index AS x WHERE x.indrelid = c.oid
        AND CASE c.relreplident WHEN 'i' THEN x.indisreplident
                 ELSE x.indisprimary END) AS identities,
       coalesce(array_to_string(ARRAY(
           SELECT o FROM unnest(c.reloptions) AS o
           WHERE o ~ '^(security|check)_' ORDER BY 1), ', '), '') AS options,
       ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE',
                                       'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p
             WHERE has_table_privilege(%(role)s::name, c.oid, p)) AS rights,
       pg_has_role(%(role)s::name, c.relowner, 'USAGE') AS owned
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhseqno = 1
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_USERS}
AND {_no_member("pg_class", "c.oid")}""",
        "tables",
    ),
    "columns": Query(
        f"""\
SELECT {_NAME} || '.' || quote_ident(a.attname) AS name, {_NAME} AS "table",
       a.attname::text AS plain, a.atttypid::int8 AS oid,
       format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       a.atthasdef AS has_default, a.attidentity::text AS identity,
       a.attgenerated::text AS generated,
       CASE WHEN a.attcollation <> t.typcollation
            THEN a.attcollation::regcollation::text ELSE '' END AS collation,
       CASE WHEN a.attacl IS NOT NULL THEN ARRAY(
           SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS p
           WHERE has_column_privilege(%(role)s::name, c.oid, a.attnum, p))
       ELSE ARRAY[]::text[] END AS rights
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_USERS}
AND {_no_member("pg_class", "c.oid")}
ORDER BY c.oid, a.attnum""",
        "columns",
    ),
    "defaults": Query(
        f"""\
SELECT {_NAME} || '.' || quote_ident(a.attname) AS name,
       pg_get_expr(d.adbin, d.adrelid) AS definition
FROM pg_attrdef AS d JOIN pg_class AS c ON c.oid = d.adrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.adnum
WHERE {_USERS}""",
        "defaults of columns",
        locks=True,
    ),
    "partitions": Query(
        f"""\
SELECT {_NAME} AS name, i.inhparent::regclass::text AS parent,
       coalesce(pg_get_expr(c.relpartbound, c.oid), '') AS definition
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid AND i.inhseqno = 1
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND {_USERS}""",
        "partitions",
        locks=True,
    ),
    "views": Query(
        f"""\
SELECT {_NAME} AS name, c.relkind::text AS kind,
       pg_get_viewdef(c.oid) AS definition,
       -- What it is made of, since releases differ in how they print names.
       ARRAY(SELECT DISTINCT d.refobjid::regclass::text || '.' || d.refobjsubid
             FROM pg_rewrite AS r JOIN pg_depend AS d ON d.objid = r.oid
             AND d.classid = 'pg_rewrite'::regclass
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
             AND d.refobjsubid > 0
             WHERE r.ev_class = c.oid ORDER BY 1) AS uses
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND {_USERS}
AND {_no_member("pg_class", "c.oid")}""",
        "views",
        locks=True,
    ),
    # NOT NULL is a constraint from 18 on, and a fact of the column before and after.
    "constraints": Query(
        f"""\
SELECT coalesce({_NAME}, quote_ident(n.nspname) || '.' || quote_ident(t.typname))
           || '.' || quote_ident(k.conname) AS name,
       coalesce({_NAME}, quote_ident(n.nspname) || '.' || quote_ident(t.typname))
           AS "table", k.conname::text AS plain,
       c.oid IS NULL AS of_domain, k.contype::text AS kind,
       pg_get_constraintdef(k.oid) AS definition, k.convalidated AS valid,
       EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgconstraint = k.oid
               AND g.tgenabled IN ('D', 'R')) AS disabled
FROM pg_constraint AS k
LEFT JOIN pg_class AS c ON c.oid = k.conrelid
LEFT JOIN pg_type AS t ON t.oid = k.contypid
JOIN pg_namespace AS n ON n.oid = coalesce(c.relnamespace, t.typnamespace)
WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conparentid = 0
AND (k.conislocal OR k.contypid <> 0) AND {_USERS}
AND {_no_member("pg_class", "k.conrelid")}
AND {_no_member("pg_type", "k.contypid")}""",
        "constraints",
    ),
    "indexes": Query(
        f"""\
SELECT quote_ident(n.nspname) || '.' || quote_ident(i.relname) AS name,
       {_NAME} AS "table", i.relname::text AS plain,
       pg_get_indexdef(x.indexrelid) AS definition,
       x.indisunique AS is_unique, x.indisvalid AND x.indisready AS valid,
       EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = x.indexrelid
               AND k.contype IN ('p', 'u', 'x')) AS of_constraint
FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_class AS c ON c.oid = x.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.relispartition AND c.relkind IN ('r', 'p', 'm') AND {_USERS}
AND {_no_member("pg_class", "c.oid")}""",
        "indexes",
    ),
    "triggers": Query(
        f"""\
SELECT {_NAME} || '.' || quote_ident(g.tgname) AS name, {_NAME} AS "table",
       g.tgname::text AS plain, pg_get_triggerdef(g.oid) AS definition,
       g.tgenabled IN ('O', 'A') AS enabled, g.tgparentid <> 0 AS inherited
FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE (NOT g.tgisinternal OR g.tgparentid <> 0) AND g.tgconstraint = 0 AND {_USERS}
UNION ALL
SELECT {_NAME} || '.' || quote_ident(g.tgname), {_NAME}, g.tgname::text,
       pg_get_triggerdef(g.oid), g.tgenabled IN ('O', 'A'), false
FROM pg_trigger AS g JOIN pg_constraint AS k ON k.oid = g.tgconstraint
AND k.contype = 't' JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {_USERS}
UNION ALL
SELECT {_NAME} || '.' || quote_ident(r.rulename), {_NAME}, r.rulename::text,
       pg_get_ruledef(r.oid), r.ev_enabled IN ('O', 'A'), false
FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND {_USERS}
AND {_no_member("pg_class", "c.oid")}""",
        "triggers and rules",
        locks=True,
    ),
    "event_triggers": Query(
        f"""\
SELECT quote_ident(e.evtname) AS name, e.evtenabled IN ('O', 'A') AS enabled,
       concat_ws(' ', 'ON', e.evtevent, array_to_string(e.evttags, ', '), 'EXECUTE',
                 e.evtfoid::regprocedure) AS definition
FROM pg_event_trigger AS e WHERE {_no_member("pg_event_trigger", "e.oid")}""",
        "event triggers",
    ),
    "routines": Query(
        f"""\
SELECT quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '('
           || pg_get_function_identity_arguments(p.oid) || ')' AS name,
       n.nspname::text AS schema, p.prokind::text AS kind,
       CASE WHEN p.prokind = 'a' THEN (
           SELECT concat_ws(' ', g.aggkind, g.aggtransfn::regprocedure,
                            nullif(g.aggfinalfn, 0)::regprocedure,
                            nullif(g.aggcombinefn, 0)::regprocedure,
                            format_type(g.aggtranstype, NULL), g.agginitval)
           FROM pg_aggregate AS g WHERE g.aggfnoid = p.oid)
       ELSE pg_get_functiondef(p.oid) END AS definition,
       pg_get_function_result(p.oid) AS result,
       to_jsonb(p) ->> 'prosqlbody' IS NOT NULL AS has_query,
       has_function_privilege(%(role)s::name, p.oid, 'EXECUTE') AS may_execute
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE {_USERS} AND {_no_member("pg_proc", "p.oid")}
-- A range brings its constructors.
AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid
                AND d.classid = 'pg_proc'::regclass AND d.deptype = 'i')""",
        "functions and procedures",
        locks=True,
    ),
    "sequences": Query(
        f"""\
SELECT {_NAME} AS name, format_type(s.seqtypid, NULL) AS type, s.seqstart AS start,
       s.seqincrement AS increment, s.seqmin AS min, s.seqmax AS max,
       s.seqcycle AS cycle, c.relpersistence::text AS persistence,
       coalesce(has_sequence_privilege(c.oid, 'SELECT, USAGE'), false) AS readable,
       CASE WHEN has_sequence_privilege(c.oid, 'SELECT, USAGE')
            THEN pg_sequence_last_value(c.oid) END AS last,
       quote_ident(o.nspname) || '.' || quote_ident(t.relname) AS "table",
       quote_ident(a.attname) AS "column",
       EXISTS (SELECT FROM pg_index AS x WHERE x.indrelid = d.refobjid
               AND x.indkey[0] = d.refobjsubid AND x.indpred IS NULL
               AND x.indisvalid) AS indexed,
       ARRAY(SELECT p FROM unnest(ARRAY['USAGE', 'UPDATE', 'SELECT']) AS p
             WHERE has_sequence_privilege(%(role)s::name, c.oid, p)) AS rights
FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
AND d.objsubid = 0 AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
LEFT JOIN pg_class AS t ON t.oid = d.refobjid
LEFT JOIN pg_namespace AS o ON o.oid = t.relnamespace
LEFT JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE {_USERS} AND {_no_member("pg_class", "c.oid")}""",
        "sequences",
        locks=True,
    ),
    "policies": Query(
        """\
SELECT quote_ident(p.schemaname) || '.' || quote_ident(p.tablename) || '.'
           || quote_ident(p.policyname) AS name,
       quote_ident(p.schemaname) || '.' || quote_ident(p.tablename) AS "table",
       p.policyname::text AS plain,
       concat_ws(' ', p.permissive, p.cmd, array_to_string(p.roles, ', '),
                 'USING ' || p.qual, 'CHECK ' || p.with_check) AS definition
FROM pg_policies AS p""",
        "policies of row security",
        locks=True,
    ),
    "objects": Query(
        f"""\
SELECT kind || ' ' || object AS name, kind, object, definition FROM (
    SELECT 'statistics' AS kind,
           quote_ident(n.nspname) || '.' || quote_ident(s.stxname) AS object,
           pg_get_statisticsobjdef(s.oid) AS definition
    FROM pg_statistic_ext AS s JOIN pg_namespace AS n ON n.oid = s.stxnamespace
    WHERE {_USERS}
    UNION ALL
    SELECT 'operator', o.oid::regoperator::text, o.oprcode::regprocedure::text
    FROM pg_operator AS o JOIN pg_namespace AS n ON n.oid = o.oprnamespace
    WHERE {_USERS} AND {_no_member("pg_operator", "o.oid")}
    UNION ALL
    SELECT 'operator class', quote_ident(n.nspname) || '.' || quote_ident(o.opcname)
               || ' USING ' || m.amname, format_type(o.opcintype, NULL)
               || CASE WHEN o.opcdefault THEN ' DEFAULT' ELSE '' END
    FROM pg_opclass AS o JOIN pg_namespace AS n ON n.oid = o.opcnamespace
    JOIN pg_am AS m ON m.oid = o.opcmethod
    WHERE {_USERS} AND {_no_member("pg_opclass", "o.oid")}
    UNION ALL
    SELECT 'cast', format('(%%s AS %%s)', format_type(k.castsource, NULL),
                          format_type(k.casttarget, NULL)),
           concat_ws(' ', k.castcontext, nullif(k.castfunc, 0)::regprocedure)
    FROM pg_cast AS k WHERE k.oid >= 16384 AND {_no_member("pg_cast", "k.oid")}
    UNION ALL
    SELECT 'collation', quote_ident(n.nspname) || '.' || quote_ident(l.collname),
           concat_ws(' ', l.collprovider, l.collcollate, l.collctype,
                     coalesce(to_jsonb(l) ->> 'colllocale',
                              to_jsonb(l) ->> 'colliculocale'),
                     l.collisdeterministic)
    FROM pg_collation AS l JOIN pg_namespace AS n ON n.oid = l.collnamespace
    WHERE {_USERS} AND {_no_member("pg_collation", "l.oid")}
    UNION ALL
    SELECT 'text search configuration',
           quote_ident(n.nspname) || '.' || quote_ident(f.cfgname),
           concat_ws(' ', f.cfgparser::text::int < 16384, (
               SELECT string_agg(concat(m.maptokentype, ':', m.mapdict::regdictionary),
                                 ' ' ORDER BY m.maptokentype, m.mapseqno)
               FROM pg_ts_config_map AS m WHERE m.mapcfg = f.oid))
    FROM pg_ts_config AS f JOIN pg_namespace AS n ON n.oid = f.cfgnamespace
    WHERE {_USERS} AND {_no_member("pg_ts_config", "f.oid")}
    UNION ALL
    SELECT 'text search dictionary',
           quote_ident(n.nspname) || '.' || quote_ident(f.dictname), f.dictinitoption
    FROM pg_ts_dict AS f JOIN pg_namespace AS n ON n.oid = f.dictnamespace
    WHERE {_USERS} AND {_no_member("pg_ts_dict", "f.oid")}
    UNION ALL
    SELECT 'foreign server', quote_ident(s.srvname), NULL
    FROM pg_foreign_server AS s
    WHERE {_no_member("pg_foreign_server", "s.oid")}
    UNION ALL
    SELECT 'user mapping', format('FOR %%I SERVER %%I', u.usename, u.srvname), NULL
    FROM pg_user_mappings AS u WHERE u.usename IN ('public', %(role)s)
    UNION ALL
    SELECT 'default privileges', format('of %%s %%s on %%s',
               pg_get_userbyid(f.defaclrole), 'in ' || n.nspname, f.defaclobjtype),
           array_to_string(ARRAY(SELECT concat(
               CASE WHEN g.grantee = 0 THEN 'public'
                    ELSE pg_get_userbyid(g.grantee)::text END, ' ', g.privilege_type)
               FROM aclexplode(f.defaclacl) AS g
               WHERE g.privilege_type <> 'MAINTAIN' ORDER BY 1), ', ')
    FROM pg_default_acl AS f LEFT JOIN pg_namespace AS n ON n.oid = f.defaclnamespace
    UNION ALL
    SELECT 'language', quote_ident(l.lanname), l.lanpltrusted::text
    FROM pg_language AS l WHERE l.oid >= 16384
    AND {_no_member("pg_language", "l.oid")}
    UNION ALL
    SELECT 'domain', quote_ident(n.nspname) || '.' || quote_ident(t.typname),
           concat_ws(' ', 'DEFAULT ' || t.typdefault,
                     CASE WHEN t.typnotnull THEN 'NOT NULL' END)
    FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
    WHERE t.typtype = 'd' AND {_USERS} AND {_no_member("pg_type", "t.oid")}
) AS found""",
        "operators, casts, text search and the like",
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
           pg_wal_lsn_diff(%(lsn)s::pg_lsn, s.confirmed_flush_lsn)::int8 END AS behind,
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
    "analyzed": Query(
        """\
SELECT DISTINCT quote_ident(s.schemaname) || '.' || quote_ident(s.tablename) AS name
FROM pg_stats AS s WHERE s.schemaname !~ '^pg_'
AND s.schemaname <> 'information_schema'""",
        "statistics of the planner",
    ),
}
