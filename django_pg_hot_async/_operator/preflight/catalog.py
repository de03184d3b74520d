"""What is read of each side: one statement a kind of object, none of them long.

They run with ``search_path = pg_catalog, pg_temp``: a name leads where it should, and
the server prints every other name with its schema. The first column of each is the
name of the object, in SQL; the columns after it are its facts. What belongs to an
extension is left to the extension.
"""

from __future__ import annotations

from .catalog_of_servers import SERVERS
from .query import NAME, USERS, Query, no_member

OBJECTS = {
    "schemas": Query(
        f"""\
SELECT quote_ident(n.nspname) AS name, n.nspname::text AS plain,
       has_schema_privilege(%(role)s::name, n.oid, 'USAGE') AS usage,
       has_schema_privilege(%(role)s::name, n.oid, 'CREATE') AS may_create
FROM pg_namespace AS n WHERE {USERS}""",
        "schemas",
    ),
    "relations": Query(
        f"""\
SELECT {NAME} AS name, n.nspname::text AS schema, c.relname::text AS relation,
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
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {USERS}
AND {no_member("pg_class", "c.oid")}""",
        "tables",
    ),
    "columns": Query(
        f"""\
SELECT {NAME} || '.' || quote_ident(a.attname) AS name, {NAME} AS "table",
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
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {USERS}
AND {no_member("pg_class", "c.oid")}
ORDER BY c.oid, a.attnum""",
        "columns",
    ),
    "defaults": Query(
        f"""\
SELECT {NAME} || '.' || quote_ident(a.attname) AS name,
       pg_get_expr(d.adbin, d.adrelid) AS definition
FROM pg_attrdef AS d JOIN pg_class AS c ON c.oid = d.adrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.adnum
WHERE {USERS}""",
        "defaults of columns",
        locks=True,
    ),
    "partitions": Query(
        f"""\
SELECT {NAME} AS name, i.inhparent::regclass::text AS parent,
       coalesce(pg_get_expr(c.relpartbound, c.oid), '') AS definition
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid AND i.inhseqno = 1
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND {USERS}""",
        "partitions",
        locks=True,
    ),
    "views": Query(
        f"""\
SELECT {NAME} AS name, c.relkind::text AS kind,
       pg_get_viewdef(c.oid) AS definition,
       -- What it is made of, since releases differ in how they print names.
       ARRAY(SELECT DISTINCT d.refobjid::regclass::text || '.' || d.refobjsubid
             FROM pg_rewrite AS r JOIN pg_depend AS d ON d.objid = r.oid
             AND d.classid = 'pg_rewrite'::regclass
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
             AND d.refobjsubid > 0
             WHERE r.ev_class = c.oid ORDER BY 1) AS uses
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND {USERS}
AND {no_member("pg_class", "c.oid")}""",
        "views",
        locks=True,
    ),
    # NOT NULL is a constraint from 18 on, and a fact of the column before and after.
    "constraints": Query(
        f"""\
SELECT coalesce({NAME}, quote_ident(n.nspname) || '.' || quote_ident(t.typname))
           || '.' || quote_ident(k.conname) AS name,
       coalesce({NAME}, quote_ident(n.nspname) || '.' || quote_ident(t.typname))
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
AND (k.conislocal OR k.contypid <> 0) AND {USERS}
AND {no_member("pg_class", "k.conrelid")}
AND {no_member("pg_type", "k.contypid")}""",
        "constraints",
    ),
    "indexes": Query(
        f"""\
SELECT quote_ident(n.nspname) || '.' || quote_ident(i.relname) AS name,
       {NAME} AS "table", i.relname::text AS plain,
       pg_get_indexdef(x.indexrelid) AS definition,
       x.indisunique AS is_unique, x.indisvalid AND x.indisready AS valid,
       EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = x.indexrelid
               AND k.contype IN ('p', 'u', 'x')) AS of_constraint
FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_class AS c ON c.oid = x.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.relispartition AND c.relkind IN ('r', 'p', 'm') AND {USERS}
AND {no_member("pg_class", "c.oid")}""",
        "indexes",
    ),
    "triggers": Query(
        f"""\
SELECT {NAME} || '.' || quote_ident(g.tgname) AS name, {NAME} AS "table",
       g.tgname::text AS plain, pg_get_triggerdef(g.oid) AS definition,
       g.tgenabled IN ('O', 'A') AS enabled, g.tgparentid <> 0 AS inherited
FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE (NOT g.tgisinternal OR g.tgparentid <> 0) AND g.tgconstraint = 0 AND {USERS}
UNION ALL
SELECT {NAME} || '.' || quote_ident(g.tgname), {NAME}, g.tgname::text,
       pg_get_triggerdef(g.oid), g.tgenabled IN ('O', 'A'), false
FROM pg_trigger AS g JOIN pg_constraint AS k ON k.oid = g.tgconstraint
AND k.contype = 't' JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {USERS}
UNION ALL
SELECT {NAME} || '.' || quote_ident(r.rulename), {NAME}, r.rulename::text,
       pg_get_ruledef(r.oid), r.ev_enabled IN ('O', 'A'), false
FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND {USERS}
AND {no_member("pg_class", "c.oid")}""",
        "triggers and rules",
        locks=True,
    ),
    "event_triggers": Query(
        f"""\
SELECT quote_ident(e.evtname) AS name, e.evtenabled IN ('O', 'A') AS enabled,
       concat_ws(' ', 'ON', e.evtevent, array_to_string(e.evttags, ', '), 'EXECUTE',
                 e.evtfoid::regprocedure) AS definition
FROM pg_event_trigger AS e WHERE {no_member("pg_event_trigger", "e.oid")}""",
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
WHERE {USERS} AND {no_member("pg_proc", "p.oid")}
-- A range brings its constructors.
AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid
                AND d.classid = 'pg_proc'::regclass AND d.deptype = 'i')""",
        "functions and procedures",
        locks=True,
    ),
    "sequences": Query(
        f"""\
SELECT {NAME} AS name, format_type(s.seqtypid, NULL) AS type, s.seqstart AS start,
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
WHERE {USERS} AND {no_member("pg_class", "c.oid")}""",
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
    WHERE {USERS}
    UNION ALL
    SELECT 'operator', o.oid::regoperator::text, o.oprcode::regprocedure::text
    FROM pg_operator AS o JOIN pg_namespace AS n ON n.oid = o.oprnamespace
    WHERE {USERS} AND {no_member("pg_operator", "o.oid")}
    UNION ALL
    SELECT 'operator class', quote_ident(n.nspname) || '.' || quote_ident(o.opcname)
               || ' USING ' || m.amname, format_type(o.opcintype, NULL)
               || CASE WHEN o.opcdefault THEN ' DEFAULT' ELSE '' END
    FROM pg_opclass AS o JOIN pg_namespace AS n ON n.oid = o.opcnamespace
    JOIN pg_am AS m ON m.oid = o.opcmethod
    WHERE {USERS} AND {no_member("pg_opclass", "o.oid")}
    UNION ALL
    SELECT 'cast', format('(%%s AS %%s)', format_type(k.castsource, NULL),
                          format_type(k.casttarget, NULL)),
           concat_ws(' ', k.castcontext, nullif(k.castfunc, 0)::regprocedure)
    FROM pg_cast AS k WHERE k.oid >= 16384 AND {no_member("pg_cast", "k.oid")}
    UNION ALL
    SELECT 'collation', quote_ident(n.nspname) || '.' || quote_ident(l.collname),
           concat_ws(' ', l.collprovider, l.collcollate, l.collctype,
                     coalesce(to_jsonb(l) ->> 'colllocale',
                              to_jsonb(l) ->> 'colliculocale'),
                     l.collisdeterministic)
    FROM pg_collation AS l JOIN pg_namespace AS n ON n.oid = l.collnamespace
    WHERE {USERS} AND {no_member("pg_collation", "l.oid")}
    UNION ALL
    SELECT 'text search configuration',
           quote_ident(n.nspname) || '.' || quote_ident(f.cfgname),
           concat_ws(' ', f.cfgparser::text::int < 16384, (
               SELECT string_agg(concat(m.maptokentype, ':', m.mapdict::regdictionary),
                                 ' ' ORDER BY m.maptokentype, m.mapseqno)
               FROM pg_ts_config_map AS m WHERE m.mapcfg = f.oid))
    FROM pg_ts_config AS f JOIN pg_namespace AS n ON n.oid = f.cfgnamespace
    WHERE {USERS} AND {no_member("pg_ts_config", "f.oid")}
    UNION ALL
    SELECT 'text search dictionary',
           quote_ident(n.nspname) || '.' || quote_ident(f.dictname), f.dictinitoption
    FROM pg_ts_dict AS f JOIN pg_namespace AS n ON n.oid = f.dictnamespace
    WHERE {USERS} AND {no_member("pg_ts_dict", "f.oid")}
    UNION ALL
    SELECT 'foreign server', quote_ident(s.srvname), NULL
    FROM pg_foreign_server AS s
    WHERE {no_member("pg_foreign_server", "s.oid")}
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
    AND {no_member("pg_language", "l.oid")}
    UNION ALL
    SELECT 'domain', quote_ident(n.nspname) || '.' || quote_ident(t.typname),
           concat_ws(' ', 'DEFAULT ' || t.typdefault,
                     CASE WHEN t.typnotnull THEN 'NOT NULL' END)
    FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
    WHERE t.typtype = 'd' AND {USERS} AND {no_member("pg_type", "t.oid")}
) AS found""",
        "operators, casts, text search and the like",
    ),
    "analyzed": Query(
        """\
SELECT DISTINCT quote_ident(s.schemaname) || '.' || quote_ident(s.tablename) AS name
FROM pg_stats AS s WHERE s.schemaname !~ '^pg_'
AND s.schemaname <> 'information_schema'""",
        "statistics of the planner",
    ),
}

# Slots late: what had been written when the transaction began has come by then.
QUERIES = {**OBJECTS, **SERVERS}
"""By kind, in the order they are sent in."""
