# What it is: a database with the extension, as a test sees it: SQL in one call, brokers, routes, waiting.
# Who calls it: the live tests, the demo.
# Never: looks behind the SQL contract.
import json
import re

import psycopg2
import psycopg2.extras

from processes import eventually


def as_json(value):
    return None if value is None else json.dumps(value)


class Database:
    def __init__(self, cluster, name, extension=True, create=True, **connection):
        self.cluster, self.name = cluster, name
        if create:
            cluster.execute(f'CREATE DATABASE "{name}"')
        self.connection = cluster.connect(name, **connection)
        if extension:
            self.run("CREATE EXTENSION pg_eventbus")

    # SQL

    def connect(self, autocommit=True, **more):
        return self.cluster.connect(self.name, autocommit, **more)

    def reconnect(self):
        self.connection.close()
        self.connection = self.connect()

    def run(self, sql, *arguments):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, sql, *arguments):
        rows = self.run(sql, *arguments)
        return rows[0][0] if rows else None

    def rows(self, sql, *arguments):
        """Each row as a dictionary."""
        with self.connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(sql, arguments or None)
            return [dict(row) for row in cursor.fetchall()]

    def drop(self, force=True):
        self.connection.close()
        self.cluster.execute(f'DROP DATABASE IF EXISTS "{self.name}"' + (" WITH (FORCE)" if force else ""))

    # The nouns

    def publish(self, topic, payload, key=None, headers=None, connection=None):
        with (connection or self.connection).cursor() as cursor:
            cursor.execute("SELECT eventbus.publish(%s, %s::jsonb, %s, %s::jsonb)",
                           (topic, as_json(payload), key, as_json(headers)))
            return cursor.fetchone()[0]

    def broker(self, name, url, **options):
        self.run("SELECT eventbus.create_broker(%s, %s, %s::jsonb)", name, url, as_json(options))

    def route(self, name, broker, destination, topics="#", **options):
        self.run("SELECT eventbus.create_route(%s, %s, %s, %s, %s::jsonb)", name, broker, destination, topics,
                 as_json(options))

    def status(self, route):
        found = self.rows("SELECT * FROM eventbus.status WHERE route = %s", route)
        return found[0] if found else None

    def health(self):
        return self.rows("SELECT * FROM eventbus.health()")

    def dead(self, route):
        return self.rows("SELECT * FROM eventbus.dead_letter WHERE route = %s ORDER BY event_id, CASE WHEN event_id IS NULL THEN "
                         "split_part(id, '-', 1)::pg_lsn END, CASE WHEN event_id IS NULL THEN split_part(id, '-', 2)::bigint END",
                         route)

    # Waiting

    def wait_status(self, route, deadline=30, **expected):
        """Until the columns have the values; a function is called with the value."""
        def there():
            row = self.status(route)
            wrong = [(name, row[name] if row else None) for name, value in expected.items()
                     if row is None or not (value(row[name]) if callable(value) else row[name] == value)]
            assert not wrong, f"{wrong} of {row}"
            return row
        return eventually(there, deadline, f"status of route {route} becomes {expected}")

    def wait_state(self, route, *states, deadline=30):
        return self.wait_status(route, deadline, state=lambda state: state in states)

    def wait_error(self, route, pattern, deadline=30):
        return self.wait_status(route, deadline, last_error=lambda text: text and re.search(pattern, text, re.I))

    def wait_log_empty(self, deadline=60):
        """By the segments' sizes: whoever keeps reading the log itself keeps its locks from rotation, which tries less
        and less often."""
        size = " + ".join(f"pg_relation_size('eventbus.log_{segment}')" for segment in range(4))
        eventually(lambda: self.one(f"SELECT {size}") == 0, deadline, "the log is released")

    def wait_dead(self, route, count=1, deadline=30):
        def there():
            rows = self.dead(route)
            assert len(rows) == count, f"{len(rows)} dead letters"
            return True
        eventually(there, deadline, f"{count} dead letters of route {route}")
        return self.dead(route)

    def sender(self, route):
        """The process id of the route's sender."""
        return self.wait_status(route, sender_pid=lambda pid: pid is not None)["sender_pid"]

    def workers(self):
        """Process ids of the extension's workers in this database, seen from outside of it."""
        return [row[0] for row in self.cluster.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type ILIKE '%%eventbus%%'", self.name)]

    def wait_workers_gone(self, deadline=30):
        eventually(lambda: not self.workers(), deadline, f"no worker is left in {self.name}")
