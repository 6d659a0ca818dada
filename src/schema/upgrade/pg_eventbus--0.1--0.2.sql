\echo Use "ALTER EXTENSION pg_eventbus UPDATE" to load this file. \quit

-- From 0.1 (commit 794d505) to 0.2. Whatever changes src/schema changes this file as well.
