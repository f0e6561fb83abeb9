-- Two roles for one database: phresh_owner owns the tables and migrates, phresh_app serves.
-- Run it as a superuser in the database, as often as you like:
--
--   psql --set=ON_ERROR_STOP=1 --set=owner_password=... --set=app_password=... \
--        --file=deploy/roles.sql phresh
--
-- It also gives phresh_owner the tables and functions that another role has made there.
-- owner and app may be set too, for other names.

\if :{?owner}
\else
\set owner phresh_owner
\endif
\if :{?app}
\else
\set app phresh_app
\endif
SELECT current_database() AS database
\gset

SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY[:'owner', :'app']) name
WHERE to_regrole(quote_ident(name)) IS NULL
\gexec
-- Neither may more than this, whatever it could before.
ALTER ROLE :"owner" LOGIN PASSWORD :'owner_password'
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE :"app" LOGIN PASSWORD :'app_password'
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

-- The owner of the database may create the extension pg_trgm, and tables in the schema public.
ALTER DATABASE :"database" OWNER TO :"owner";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"app";
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO :"owner";
GRANT USAGE ON SCHEMA public TO :"app";

SELECT format('ALTER %s %s OWNER TO %I', kind, name, :'owner') FROM (
    SELECT 'pg_class'::regclass AS class, oid, 'TABLE' AS kind, oid::regclass::text AS name
    FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, 'FUNCTION', oid::regprocedure::text
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
) objects
WHERE NOT EXISTS ( -- what belongs to an extension
    SELECT FROM pg_depend WHERE classid = class AND objid = objects.oid AND deptype = 'e'
)
\gexec

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"app";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"app"; -- of columns that are serial
-- Those of later migrations too.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO :"app";
