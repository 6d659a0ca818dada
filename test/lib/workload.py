# What it is: random tables, and random changes of their rows and of the tables themselves, from one seed.
# Who calls it: the tests of what is decoded from the WAL.
# Never: reads what was decoded; one workload is the same for everybody who decodes it.
import psycopg2

TYPES = """
    CREATE SCHEMA "Other";
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE TYPE "Mood" AS ENUM ('a', 'b');
    CREATE TYPE pair AS (a integer, b text);
    CREATE DOMAIN small AS integer CHECK (VALUE < 1000);
    CREATE DOMAIN words AS varchar(50);
    CREATE DOMAIN smaller AS small;
"""
VALUES = {  # type -> a random value as SQL
    "smallint": lambda dice: str(dice.randint(-2**15, 2**15 - 1)),
    "integer": lambda dice: str(dice.randint(-2**31, 2**31 - 1)),
    "bigint": lambda dice: str(dice.randint(-2**63, 2**63 - 1)),
    "oid": lambda dice: str(dice.randint(0, 2**32 - 1)),
    "numeric": lambda dice: dice.choice(["'NaN'", "'-Infinity'", f"{dice.randint(0, 10**30)}.{dice.randint(0, 9)}0"]),
    "numeric(10,2)": lambda dice: f"{dice.randint(-10**7, 10**7)}.5",
    "real": lambda dice: dice.choice(["'NaN'", "'Infinity'", "1.5e20", repr(dice.random())]),
    "double precision": lambda dice: dice.choice(["'-Infinity'", "0.1", "1e300", repr(dice.random())]),
    "boolean": lambda dice: dice.choice(["true", "false"]),
    "text": lambda dice: dice.choice(["''", "'a\"b\\c'", "E'\\n\\t\\x01\\x7f'", "'żółw 🐢'", "repeat('x', 3000)",
                                      f"(SELECT string_agg(md5((i * {dice.random()})::text), '') "
                                      "FROM generate_series(1, 200) i)"]),
    "varchar(20)": lambda dice: f"'{dice.randint(0, 10**9)} / \"'",
    "char(5)": lambda dice: f"'{dice.randint(0, 99)}'",
    '"char"': lambda dice: f"'{dice.choice('abc')}'",
    "name": lambda dice: f"'name \"{dice.randint(0, 99)}'",
    "bytea": lambda dice: f"'\\x{dice.randbytes(dice.randint(0, 9)).hex()}'",
    "timestamptz": lambda dice: dice.choice(["'infinity'", f"to_timestamp({dice.random() * 2e9})"]),
    "timestamp(3)": lambda dice: f"to_timestamp({dice.random() * 2e9})::timestamp",
    "date": lambda dice: f"date '2024-02-29' + {dice.randint(-10**6, 10**6)}",
    "time": lambda dice: f"make_time({dice.randint(0, 23)}, {dice.randint(0, 59)}, {dice.random()})",
    "interval": lambda dice: f"make_interval(days => {dice.randint(-9, 9)}, secs => {dice.random()})",
    "uuid": lambda dice: f"md5('{dice.random()}')::uuid",
    # Not 'null': within a row's JSON it is what NULL is.
    "json": lambda dice: dice.choice(["'{\"a\":  [1]}'", "'\"x\"'"]),
    "jsonb": lambda dice: dice.choice(["'{\"a\": [1, null, \"\\u00e9\"]}'", "'\"null\"'", "'7.50'"]),
    "text[]": lambda dice: dice.choice(["'{}'", "'{a,NULL,\"b c\"}'", "'{{a,b},{c,d}}'"]),
    "bit(3)": lambda dice: f"B'{dice.randint(0, 7):03b}'",
    "inet": lambda dice: f"'10.0.0.{dice.randint(0, 255)}/24'",
    "money": lambda dice: f"{dice.randint(0, 999)}::money",
    "point": lambda dice: f"point({dice.randint(0, 9)}, {dice.randint(0, 9)})",
    "tsvector": lambda dice: "to_tsvector('simple', 'it''s a \"fat\" cat')",
    "int4range": lambda dice: f"int4range({dice.randint(0, 4)}, {dice.randint(5, 9)})",
    "mood": lambda dice: dice.choice(["'sad'", "'glad'"]),
    '"Mood"': lambda dice: dice.choice(["'a'", "'b'"]),
    "pair": lambda dice: f"ROW({dice.randint(0, 9)}, 'x, \"y\"')",
    "pair[]": lambda dice: f"ARRAY[ROW({dice.randint(0, 9)}, NULL)::pair]",
    "small": lambda dice: str(dice.randint(0, 999)),
    "smaller": lambda dice: str(dice.randint(0, 999)),
    "words": lambda dice: f"'words {dice.randint(0, 999)}'",
}
DEFAULTS = {"integer": "7", "text": "'none'::text || 1", "timestamptz": "now()", "numeric(10,2)": "0.5"}


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


class Table:
    """A random table."""

    def __init__(self, workload, number):
        self.workload, self.dice = workload, workload.dice
        dice = self.dice
        self.schema = dice.choice(["public", "public", "Other"])
        self.name = f"t{number}" if dice.random() < 0.7 else f't {number}"'
        self.types = {f"c{i}" if dice.random() < 0.8 else f'C "{i}': dice.choice(list(VALUES))
                      for i in range(dice.randint(1, 9))}
        self.next_column = 100
        self.kind = dice.choice(["keyless", "keyed", "keyed", "partitioned"])
        columns = [self.column(name, kind) for name, kind in self.types.items()]
        columns.insert(dice.randint(0, len(columns)), "id integer NOT NULL")
        if self.kind != "keyless":
            columns.append("PRIMARY KEY (id)")
        if dice.random() < 0.3:
            columns.append("twice integer GENERATED ALWAYS AS (id * 2) STORED")
        by = " PARTITION BY LIST (id)" if self.kind == "partitioned" else ""
        self.run(f"CREATE TABLE {self} ({', '.join(columns)}){by}")
        if by:
            self.run(f"CREATE TABLE {self.part('some')} PARTITION OF {self} FOR VALUES IN (1, 2, 3, 4)")
            self.run(f"CREATE TABLE {self.part('rest')} PARTITION OF {self} DEFAULT")
        self.identity()

    def __str__(self):
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def part(self, name):
        return f"{quoted(self.schema)}.{quoted(f'{self.name}_{name}')}"

    def run(self, sql):
        self.workload.run(sql)

    def parts(self):
        return [self.part("some"), self.part("rest")] if self.kind == "partitioned" else [str(self)]

    def column(self, name, kind):
        default = f" DEFAULT {DEFAULTS[kind]}" if kind in DEFAULTS and self.dice.random() < 0.5 else ""
        return f"{quoted(name)} {kind}{default}"

    def identity(self):
        how = self.workload.identity or self.dice.choice(["FULL", "DEFAULT", "NOTHING", "INDEX"])
        for part in self.parts():
            if how != "INDEX":
                self.run(f"ALTER TABLE {part} REPLICA IDENTITY {how}")
            elif self.kind == "keyed":
                index = f"identity_{self.dice.randint(0, 10**9)}"
                self.run(f"CREATE UNIQUE INDEX {index} ON {part} (id)")
                self.run(f"ALTER TABLE {part} REPLICA IDENTITY USING INDEX {index}")

    def value(self, name):
        return "NULL" if self.dice.random() < 0.2 else VALUES[self.types[name]](self.dice)

    def change(self):
        many = 1.5 if self.workload.many else 0
        kind = self.dice.choices(["insert", "update", "delete", "truncate", "many"], [6, 5, 2, 0.3, many])[0]
        some = f"id % {self.dice.randint(1, 7)} = 0"
        if kind == "insert":
            names = self.dice.sample(list(self.types), self.dice.randint(0, len(self.types)))
            rows = ", ".join(f"({', '.join([str(self.dice.randint(1, 40))] + [self.value(n) for n in names])})"
                             for _ in range(self.dice.randint(1, 4)))
            skip = "" if self.kind == "keyless" else " ON CONFLICT DO NOTHING"
            self.run(f"INSERT INTO {self} ({', '.join(['id'] + [quoted(n) for n in names])}) VALUES {rows}{skip}")
        elif kind == "update":
            names = self.dice.sample(list(self.types), self.dice.randint(0, len(self.types)))
            new = [f"{quoted(n)} = {self.value(n)}" for n in names]
            if not new or self.dice.random() < 0.2:
                new.append("id = id + 100")
            self.run(f"UPDATE {self} SET {', '.join(new)} WHERE {some}")
        elif kind == "delete":
            self.run(f"DELETE FROM {self} WHERE {some}")
        elif kind == "many":
            skip = "" if self.kind == "keyless" else " ON CONFLICT DO NOTHING"
            begin = self.dice.randint(1000, 9000)
            self.run(f"INSERT INTO {self} (id) SELECT generate_series({begin}, {begin + 600}){skip}")
        else:
            self.run(f"TRUNCATE {self}")

    def alter(self):
        dice = self.dice
        kind = dice.choice(["add", "drop", "rename", "identity", "rename table", "schema", "type", "default"])
        names = list(self.types)
        if kind == "add":
            name, self.next_column = f"n{self.next_column}", self.next_column + 1
            self.types[name] = dice.choice(list(VALUES))
            self.run(f"ALTER TABLE {self} ADD COLUMN {self.column(name, self.types[name])}")
        elif kind == "drop" and len(names) > 1:
            name = dice.choice(names)
            del self.types[name]
            self.run(f"ALTER TABLE {self} DROP COLUMN {quoted(name)}")
        elif kind == "rename" and names:
            name, new, self.next_column = dice.choice(names), f"r{self.next_column}", self.next_column + 1
            self.types[new] = self.types.pop(name)
            self.run(f"ALTER TABLE {self} RENAME COLUMN {quoted(name)} TO {quoted(new)}")
        elif kind == "identity":
            self.identity()
        elif kind == "rename table" and self.kind != "partitioned":
            new, self.next_column = f"{self.name[:20]}_{self.next_column}", self.next_column + 1
            self.run(f"ALTER TABLE {self} RENAME TO {quoted(new)}")
            self.name = new
        elif kind == "schema" and self.kind != "partitioned":
            new = "public" if self.schema == "Other" else "Other"
            self.run(f"ALTER TABLE {self} SET SCHEMA {quoted(new)}")
            self.schema = new
        elif kind == "type":
            numbers = [n for n in names if self.types[n] in ("integer", "smallint")]
            if numbers:
                name = dice.choice(numbers)
                self.types[name] = "bigint"
                self.run(f"ALTER TABLE {self} ALTER COLUMN {quoted(name)} TYPE bigint")
        elif kind == "default":
            texts = [n for n in names if self.types[n] == "text"]
            if texts:
                self.run(f"ALTER TABLE {self} ALTER COLUMN {quoted(dice.choice(texts))} SET DEFAULT 'later'")

    def remember(self):
        return self.schema, self.name, dict(self.types), self.kind

    def recall(self, remembered):
        self.schema, self.name, self.types, self.kind = remembered[0], remembered[1], dict(remembered[2]), remembered[3]


class Workload:
    """identity: the replica identity of all tables, or None for random ones. many: some INSERTs are of many rows."""

    def __init__(self, db, dice, tables=5, identity=None, ddl=True, many=False):
        self.db, self.dice, self.identity, self.ddl, self.many = db, dice, identity, ddl, many
        self.trace = []
        self.messages = 0
        for statement in filter(str.strip, TYPES.split(";")):
            db.run(statement)
        self.tables = [Table(self, i) for i in range(tables)]

    def run(self, sql):
        self.trace.append(sql)
        self.db.run(sql)

    def step(self):
        what = self.dice.random()
        if what < 0.08 and self.ddl:
            self.dice.choice(self.tables).alter()
        elif what < 0.14:
            self.messages += 1
            prefix = self.dice.choice(["one", "two", "shop.order"])
            self.run(f"SELECT pg_logical_emit_message({self.dice.choice(['true', 'true', 'false'])}, '{prefix}', "
                     f"'message \"{self.messages}\" żółw')")
        elif what < 0.15 and self.ddl:
            self.run("ALTER TYPE pair RENAME TO pear")
            self.run("ALTER TYPE pear RENAME TO pair")
        else:
            self.dice.choice(self.tables).change()

    def transaction(self):
        """Up to six steps, savepoints among them; about one in six is rolled back."""
        remembered = [table.remember() for table in self.tables]
        self.run("BEGIN")
        for _ in range(self.dice.randint(0, 6)):
            inner = self.dice.random() < 0.3
            at_savepoint = [table.remember() for table in self.tables]
            self.run("SAVEPOINT s")
            try:
                self.step()
            except psycopg2.Error as error:
                if error.pgcode in ("42601", "42703", "42P01"):  # the workload's own mistakes
                    raise
                self.run("ROLLBACK TO s")
                self.recall(at_savepoint)
                continue
            if inner and self.dice.random() < 0.5:
                self.run("ROLLBACK TO s")
                self.recall(at_savepoint)
            elif not inner:
                self.run("RELEASE s")
        if self.dice.random() < 0.15:
            self.run("ROLLBACK")
            self.recall(remembered)
        else:
            self.run("COMMIT")

    def recall(self, remembered):
        for table, state in zip(self.tables, remembered):
            table.recall(state)
