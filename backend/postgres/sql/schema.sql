{{/*
What Migrate makes, as templates of text/template: migrate.go says what each is given.

CREATE SCHEMA IF NOT EXISTS would ask for a right that is not needed if the schema is there.
*/}}
{{define "schema" -}}
DO {{.quote}}BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {{.schema_name}}) THEN
    CREATE SCHEMA {{.schema}};
  END IF;
END{{.quote}}
{{- end}}

{{/* A role that may not create needs the right to read this to call Migrate. */}}
{{define "versions" -}}
CREATE TABLE {{.versions}} (version int NOT NULL, oldest int NOT NULL);
INSERT INTO {{.versions}} VALUES (1, 1);
GRANT SELECT ON {{.versions}} TO PUBLIC
{{- end}}

{{/*
There is room in the pages, so that a new version of a row stays in its page and the index is left
alone. Nothing but the key has an index for the same reason.
*/}}
{{define "table" -}}
CREATE {{.unlogged}} TABLE {{.table}} (
  key text COLLATE "C" PRIMARY KEY,
  rules text COLLATE "C" NOT NULL,
  expires bigint NOT NULL,
  state bigint[] NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.5)
{{- end}}

{{define "version"}}SELECT version, oldest FROM {{.versions}}{{end}}

{{/* Whether the table and all functions are there. */}}
{{define "there" -}}
SELECT to_regclass($1) IS NOT NULL, (
  SELECT count(DISTINCT p.proname)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname = $2::text AND p.proname = ANY ($3::text[])) = $4
{{- end}}
