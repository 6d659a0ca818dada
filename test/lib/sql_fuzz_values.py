# What it is: random values of SQL, as expressions: near to what is meant, near to what is not, and neither.
# Who calls it: sql_fuzz.py.
# Never: takes anything but its dice for chance: a seed makes the same values again.
import struct

ODD = ["", " ", ".", "a..b", "'", '"', '""', "\\", "%s", "%n", "{topic}", "{key}", "{header:x}", "{topic/}", "{op}",
       "{", "}}",
       "{{", "\t", "\n", "\x01", "\x06", "\x1b", "\x7f", "\u0085", "ä", "e\u0301", "\U0001f600", "\u202e", "\ufeff",
       "\uffff",
       "null", "NULL", "-1", "0x10", "1e999", "NaN", "*", "#", "+", "-", ",", ";", "--", "/*", "$$", "$SYS/x", "a" * 63,
       "b" * 64,
       "pg_catalog", "=", ":", "/", "?", "@", "%2F", "%00", "%zz", "[", "]", "(", ")", "::", "true", "0", "ss\u00df",
       "\u0130i"]
WORDS = ["a", "b", "fuzz", "shop", "order", "id", "note", "New", "good", "x y", "état", "t"]
SIZES = [1, 7, 63, 64, 127, 128, 254, 255, 256, 1000, 8190, 65535, 65536, 300_000, 1_100_000]
DEPTHS = [10, 31, 99, 100, 101, 500, 5000, 6400, 50_000]
INTEGERS = ["0", "1", "-1", "2", "7", "127", "255", "256", "32768", "65536", "2147483647", "-2147483648", "2147483648",
            "9223372036854775807", "(-9223372036854775808)"]
NUMBERS = ["0", "-0", "1", "-1", "0.1", "1.5", "1e2", "1E+5", "1e131071", "1e-16383", "1" * 40, "0." + "3" * 60,
           "1e400", "-1e-400",
           "4294967296", "9007199254740993", "86400000", "1000001"]
INTERVALS = ["0", "10 ms", "-1 s", "1 s", "00:00:00.000001", "1 mon -1 day", "178000000 years", "-178000000 years",
             "1e3 days"]
MOMENTS = ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31", "2024-02-29 12:00:00.000001+15:59", "epoch", "now"]
URLS = ["redis://127.0.0.1:1", "redis://u:p%40ss@127.0.0.1:1/3", "redis:///nonexistent/redis.sock?db=1",
        "rediss://localhost:1",
        "amqp://guest:guest@127.0.0.1:1/%2F", "amqps://127.0.0.1:1?heartbeat=5&connection_timeout=100",
        "mqtt://127.0.0.1:1,[::1]:2",
        "mqtts://u@127.0.0.1:1", "ws://127.0.0.1:1/path", "wss://u:p@localhost:1", "redis://h1,h2,h3:7/0", "kafka://h",
        "amqp://a:b/c@h"]
DESTINATIONS = ["list:{topic}", "stream:s", "stream:{key}-{header:x}", "channel:{topic}", "topic:{topic/}",
                "topic:a/{topic/}/{key}",
                "queue:q", "exchange:{topic}", "exchange:", "list:", "list:{", "stream:{nosuch}", "hash:x"]
TOPICS = ["fuzz.a", "fuzz.order.created", "fuzz", "a.b.c", "good", "x" * 255, "x" * 256, "fuzz..a", "fuzz.*", "fuzz.ä",
          "pg_eventbus",
          "fuzz." + "y." * 100 + "z"]
PATTERNS = ["#", "fuzz.#", "*.a", "#.created", "fuzz.*, a.#", "", ",", "#,#", "fuzz.#.#.#.*.a", "-fuzz", "fuzz.*x",
            ", ".join(["a.b"] * 300)]
TEMPLATES = ["fuzz.{schema}.{table}.{op}", "fuzz.{op}", "{table}", "{schema}.{nosuch}", "fuzz.{{x}}", "fuzz", "fuzz.{",
             "fuzz.{tag}"]
COLUMNS = ["id", "id, note", "-note", "-id", "note,  id", "nosuch", '"odd ""column""."', "-j, -b", "id, -note",
           "id, id", "", ",", '"', "*"]
CONDITIONS = ["NEW.id > 1", "OLD IS DISTINCT FROM NEW", "NEW.note LIKE '%a%'", "true", "NULL", "NEW.id", "1 / 0 > 1",
              "NEW.nosuch", "OLD.id > NEW.id",
              "EXISTS (SELECT 1 FROM pg_class)", "(SELECT max(id) FROM fuzz.t) > 0", "random() > 0.5",
              "NEW.id IN (1, 2, 3)", "1)", "; SELECT 1",
              "count(*) > 1", "row_number() OVER () > 1", "$1", "NEW", "NEW.*", "NEW = OLD", "tableoid > 0",
              "NEW.ctid IS NULL", "NEW.dom IS NULL",
              "NEW.comp IS NOT NULL", "NEW.arr[1] > 0", "eventbus.publish('fuzz.c', '1') > 0", "fuzz.volatile(NEW.id)",
              "CASE WHEN NEW.id > 1 THEN",
              "generate_series(1, 3) > 1", "NEW.note COLLATE \"C\" > 'a'", "lower(NEW.note) = current_user",
              "'a' = ANY (ARRAY[NEW.note])"]
OPERATIONS = ["insert", "insert, update", "update,delete, truncate", "truncate", "unchanged", "update, unchanged",
              "nosuch", "", "insert,", "INSERT"]
TAGS = ["CREATE TABLE", "create table, DROP TABLE", "ALTER TABLE", "nosuch", "", "CREATE FUNCTION,CREATE SERVER", ","]
ARGUMENTS = ["headers={\"a\": 1}", "headers=nonsense", "headers=[]", "headers=", "columns=id", "columns=-note",
             "columns=\"", "key=id", "key=nosuch",
             "key=", "payload=row", "payload=key", "payload=change", "payload=x", "unchanged=true", "unchanged=maybe",
             "nosuch=1", "=", "topic=x", "key"]
BROKER_OPTIONS = ["password_file", "ca_file", "crl_file", "cert_file", "key_file", "verify", "tls_min_version",
                  "connect_timeout", "heartbeat",
                  "window", "confirm_timeout", "version", "client_id", "session_expiry", "will", "nosuch"]
ROUTE_OPTIONS = ["order", "max_attempts", "max_age", "start", "source", "routing_key", "persistent", "qos", "retain",
                 "maxlen", "tables",
                 "publication", "operations", "messages", "format", "origin", "nosuch"]
OPTION_VALUES = ['"wal"', '"log"', '"earliest"', '"now"', '"key"', '"none"', '"row"', '"debezium"', '"wal2json"',
                 '"any"', '"1 s"', '"fuzz.*"',
                 '"-fuzz.t"', '"1.3"', '"5"', '"3.1.1"', '"/etc/passwd"', '"/dev/zero"', '"/"',
                 '{"topic": "w", "payload": "p", "qos": 1}', "true", "false"]
CONTENT_TYPES = ["text/plain", "application/json", "", "x" * 256, "a/b; charset=utf-8", "text/plain\r\nX: y"]
POOLS = {
    "url": URLS, "destination": DESTINATIONS, "topics": PATTERNS, "columns": COLUMNS, "condition": CONDITIONS,
    "operations": OPERATIONS,
    "tags": TAGS, "content_type": CONTENT_TYPES, "payload": ["change", "row", "key", "x"],
    "key": ["k", "id", "id, note", ""],
    "event": ["1", "0/1", "FFFFFFFF/FFFFFFFF", "-1", "9223372036854775808", "x"],
}
# Of a column's type, what stands in a row.
FIELDS = {
    "int": INTEGERS, "text": None, "jsonb": None, "bytea": None, "bool": ["true", "false"],
    "numeric": ["'NaN'", "'Infinity'", "'-Infinity'", "1e131071", "1e-16383", "0", "-1.50"],
    "float8": ["'NaN'", "'-Infinity'", "1e308", "5e-324", "-0.0"],
    "timestamptz": [f"'{m}'" for m in MOMENTS], "date": ["'infinity'", "'4713-01-01 BC'", "'5874897-12-31'"],
    "interval": [f"'{i}'" for i in INTERVALS],
    "int[]": ["'{}'", "'[-3:-1]={1,NULL,3}'", "'{{1,2},{3,4}}'", "array_fill(1, ARRAY[30, 40])",
              "'[2147483600:2147483601]={1,2}'"],
    "text[]": ["'{NULL,\"\",\"a,b\",\"\\\\\"\"}'", "'[5:6][-2:-1]={{a,b},{c,NULL}}'", "ARRAY[repeat('x', 9000)]"],
    "fuzz.dom": ["'{1,2}'", "'[0:0]={NULL}'"], "fuzz.comp": ["ROW(1, NULL, NULL)",
                                                             "ROW(2, 'x', ARRAY[ROW(1, '{1}')::fuzz.inner])",
                                                             "ROW(NULL, '', '{}')"],
    "fuzz.mood": ["'sad'", "'gl ad'"], "int4range": ["'empty'", "'[1,)'", "'(,)'"],
    "fuzz.ranges": ["'{}'", "'{[1,2),[5,6)}'"],
    "oid": ["0", "4294967295"], "regclass": ["'fuzz.t'", "0", "4294967295"], "name": ["'x'", "repeat('y', 63)"],
    "\"char\"": ["'a'", "''", "'\\377'"],
    "money": ["'1.5'", "-92233720368547758.08"], "bit(3)": ["B'101'"], "varbit": ["B''", "B'1'::bit(1000)"],
    "inet": ["'::1/0'", "'1.2.3.4/8'"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'"], "xid8": ["'18446744073709551615'"],
    "point": ["'(NaN,Infinity)'"], "pg_lsn": ["'FFFFFFFF/FFFFFFFF'"],
    "tsvector": ["'a:1A b'"], "xml": ["'<a/>'"], "json": ["'{\"a\": [1, {}]}'", "repeat('[', 6000)::text::json",
                                                          "' 1 '", "'\"\\u0000\"'"], "char(3)": ["'a'", "''"],
}


def literal(text):
    return "'" + text.replace("\0", "").replace("'", "''") + "'"


def bytes_literal(content):
    return f"'\\x{content.hex()}'::bytea"


class Values:
    """names: whom expressions may name, by the kind: table, role, route, broker."""

    def __init__(self, dice, names):
        self.dice, self.names = dice, names

    def chance(self, share):
        return self.dice.random() < share

    def one(self, *lists):
        return self.dice.choice(self.dice.choice(lists))

    # Texts, as Python has them

    def mutated(self, text):
        for _ in range(self.dice.randint(1, 3)):
            at = self.dice.randint(0, len(text))
            kind = self.dice.randrange(5)
            if kind == 0:
                text = text[:at] + self.one(ODD) + text[at:]
            elif kind == 1:
                text = text[:at] + text[at + self.dice.randint(1, 4):]
            elif kind == 2:
                text = text[:at] + text[at:].swapcase()
            elif kind == 3:
                text += text[at:]
            else:
                text = text[at:] + text[:at]
        return text

    def words(self):
        return self.dice.choice(["", ".", " ", ","]).join(self.one(ODD, WORDS) for _ in range(self.dice.randint(1, 4)))

    def near(self, pool):
        """One of a pool, or something like one of them, or anything."""
        share = self.dice.random()
        return self.one(pool) if share < 0.6 else self.mutated(self.one(pool)) if share < 0.85 else self.words()

    def json(self, depth=3):
        kind = self.dice.randrange(8 if depth else 4)
        if kind == 0:
            return self.one(NUMBERS)
        if kind == 1:
            return self.one(["null", "true", "false", '"\\ud83d\\ude00"', '"\\u0001"', '""', '"\\\\"', '"\\u0000"'])
        if kind < 4:
            return '"' + "".join(c for c in self.words() if c not in '"\\' and c >= " ") + '"'
        if kind == 4:
            return "[" + ",".join(self.json(depth - 1) for _ in range(self.dice.randint(0, 4))) + "]"
        return self.object(self.dice.randint(0, 4), depth - 1)

    def object(self, count, depth):
        return "{" + ",".join(f"{self.json_name()}:{self.json(depth)}" for _ in range(count)) + "}"

    def json_name(self):
        return '"' + self.one(["a", "", "x", "event-key", "priority", "expiration", "correlation-id", "traceparent",
                               "ä", "a.b", "k" * 300, "$"]) + '"'

    def options(self, known):
        return "{" + ",".join(f'"{self.one(known)}":' + (self.one(OPTION_VALUES) if self.chance(0.6) else self.json(1))
                              for _ in range(self.dice.randint(0, 3))) + "}"

    # Expressions

    def text(self, pool=None):
        kind = self.dice.randrange(12)
        if kind == 0:
            return f"repeat({literal(self.one(ODD, WORDS) or 'x')}, {self.one(SIZES)})"
        if kind == 1:
            content = self.dice.randbytes(self.dice.randint(1, 20)).replace(b"\0", b"x")
            return f"convert_from({bytes_literal(content)}, 'SQL_ASCII')"
        if kind == 2:
            code = self.dice.choice([1, 127, 128, 233, 255, 0x300, 0xD7FF, 0xFFFD, 0x10FFFF])
            return f"chr({code}) || {literal(self.words())}"
        return literal(self.near(pool) if pool else self.words())

    def jsonb(self, text=None):
        kind = self.dice.randrange(14)
        depth, size = self.one(DEPTHS), self.one(SIZES)
        if kind == 0:
            return f"(repeat('[', {depth}) || repeat(']', {depth}))::jsonb"
        if kind == 1:
            return f"(repeat('{{\"a\":', {depth}) || '1e131071' || repeat('}}', {depth}))::jsonb"
        if kind == 2:
            return f"(SELECT jsonb_object_agg('k' || g, g) FROM generate_series(1, {min(size, 20000)}) g)"
        if kind == 3:
            return f"to_jsonb(repeat({literal(self.one(ODD, WORDS) or 'x')}, {size}))"
        if kind == 4:
            return ("(SELECT jsonb_build_object('a', jsonb_agg(1e131071::numeric)) "
                    f"FROM generate_series(1, {min(size, 300)}))")
        return f"{literal(text or self.json())}::jsonb"

    def bytea(self):
        kind = self.dice.randrange(6)
        if kind == 0:
            return bytes_literal(self.dice.randbytes(self.one([0, 1, 2, 15, 16, 17, 24, 25, 100, 3000])))
        if kind == 1:
            return f"convert_to(repeat({literal(self.one(ODD, WORDS) or 'x')}, {self.one(SIZES)}), 'UTF8')"
        content = bytearray(self.one([self.arguments, self.message])())
        for _ in range(self.dice.randint(0, 3)):
            if content and self.chance(0.8):
                content[self.dice.randrange(len(content))] = self.dice.choice([0, 1, 0x7F, 0x80, 0xFF,
                                                                               self.dice.randrange(256)])
            else:
                content = content[:self.dice.randint(0, len(content))]
        return bytes_literal(bytes(content))

    def arguments(self):
        """pg_trigger.tgargs: each ends with a zero byte."""
        texts = [self.near(TEMPLATES), *(self.near(ARGUMENTS) for _ in range(self.dice.randint(0, 4)))]
        return b"".join(text.encode() + b"\0" for text in texts)

    def message(self):
        """As publish_wal writes it: core/wal_message.cpp."""
        parts = [self.near(pool).encode()[:65000] for pool in (TOPICS, WORDS, CONTENT_TYPES)]
        headers, payload = self.json().encode(), self.json().encode()
        head = struct.pack("=BBHHHIxxxxq", self.one([1, 1, 1, 0, 255]), self.one([0, 0, 1, 2, 255]),
                           *(len(part) for part in parts), len(headers),
                           self.one([0, 1_700_000_000_000_000, -62135596800000000, 2**63 - 1, -2**63]))
        return head + b"".join(parts) + headers + payload

    def of(self, type, name, function=""):
        """An argument of a function of ours."""
        if self.chance(0.08):
            return f"NULL::{type}"
        if type == "text" and name == "stored":  # as the log has a captured row: what is common is a control character
            return "concat(" + ", ".join(self.one([f"chr({self.one(range(1, 32))})", literal(self.json())]) for _ in range(8)) + ")"
        if type == "text":
            return self.text(self._pool(name, function))
        if type == "jsonb":
            if name == "options":
                return self.jsonb(self.options(BROKER_OPTIONS if "broker" in function else ROUTE_OPTIONS))
            return self.jsonb(self.object(3, 1) if name == "headers" else None)
        if type == "json":
            return f"{literal(self.object(3, 1) if name == 'headers' else self.json())}::json"
        if type == '"any"':
            return self.field(self.one(sorted(FIELDS), ["json", "jsonb", "int", "uuid"]))
        plain = {"bytea": self.bytea, "boolean": lambda: self.one(["true", "false"]),
                 "bigint": lambda: self.one(INTEGERS),
                 "xid8": lambda: self.one(["'0'::xid8", "'18446744073709551615'::xid8", "pg_current_xact_id()"]),
                 "timestamp with time zone": lambda: self.one(["now()", "'infinity'::timestamptz", "'-infinity'::timestamptz",
                                                               "'4713-01-01 BC'::timestamptz", "'294276-12-31'::timestamptz"]),
                 "interval": lambda: literal(self.one(INTERVALS)) + "::interval",
                 "pg_lsn": lambda: self.one(["'0/0'::pg_lsn", "'FFFFFFFF/FFFFFFFF'::pg_lsn",
                                             "pg_current_wal_insert_lsn()", "'0/16B3748'::pg_lsn"]),
                 "oid": lambda: self.one(["0::oid", "4294967295::oid", f"{self.relation()}::oid"]),
                 "regclass": self.relation,
                 "regrole": lambda: self.one([f"'{self.one(self.names['role'])}'::regrole", "'-'::regrole",
                                              "4294967295::oid::regrole", "'postgres'::regrole"])}
        assert type in plain, f"no values of type {type}, which {function} takes"
        return plain[type]()

    def relation(self):
        tables = self.names["table"]
        others = ["pg_class", "pg_stat_activity", "eventbus.log_0", "eventbus.status", "eventbus.cursor",
                  "eventbus.event_id", "pg_toast.pg_toast_1255",
                  "pg_class_oid_index", "information_schema.tables"]
        if self.chance(0.1):
            return self.one(["0::oid::regclass", "4294967295::oid::regclass", "'-'::regclass"])
        return literal(self.one(tables, tables, others)) + "::regclass"

    def _pool(self, name, function):
        if name == "topic":
            return TEMPLATES if "capture" in function else TOPICS
        if name in ("broker", "route"):
            return self.names[name]
        if name == "name":
            return self.names["broker" if "broker" in function else "route"]
        if name == "payload" and "publish" in function:
            return None
        return POOLS.get(name)

    def field(self, type):
        """A value of a column."""
        if self.chance(0.15):
            return "NULL"
        pool = FIELDS[type]
        value = {"text": self.text, "jsonb": self.jsonb,
                 "bytea": self.bytea}[type]() if pool is None else self.one(pool)
        return f"({value})::{type}"
