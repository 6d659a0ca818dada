# What it is: the documents' blocks of code, run as a reader would run them: one after another, in one session of psql.
# Who calls it: test_docs.py.
# Never: lets a block reach a broker that is not the test's own.
"""A comment before a block says what psql cannot know. Several may stand there, each of one of these:

    <!-- test: skip: why it cannot be run -->
    <!-- test: error 42501 -->           the block raises this SQLSTATE (several: one comment each), and no other
    <!-- test: before: SQL -->           what the reader has, and the page does not show
    <!-- test: await: SQL -->            run until it returns true, before the block; these in the order of the comments
    <!-- test: queue orders -->          RabbitMQ has this queue (made before the block); "exchange fleet" likewise
    <!-- test: until: SQL -->            run after the block until it returns true
    <!-- test: run -->                   of a block of sh: it is run; else only SQL is
    <!-- test: run beside -->            the same, in the background until the page's end: the reader's second terminal
    <!-- test: prints: pattern -->       what a block prints, then or (one beside) in the end"""
import collections
import os
import re
import shlex
import signal
import subprocess

from postgres import bin_directory
from processes import eventually

Block = collections.namedtuple("Block", "line language text wishes")
WISHES = {"skip": True, "error": False, "before": True, "await": True, "queue": False, "exchange": False, "until": True, "run": False,
          "prints": True}  # whether a colon and a text follow
PART = re.compile(r"<!-- test: (?P<wish>.*?) -->|^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^ *```[ ]*$",
                  re.S | re.M)
RAISED = re.compile(r"^psql:<stdin>:\d+: (?:(?:ERROR|FATAL|PANIC):  (?P<state>\w{5}): .*|error: .*)$", re.M)
DEADLINE = 60


class Wrong(AssertionError):
    """What a document says does not hold."""


def read_wish(text, where):
    """(verb, argument) of a comment."""
    verb, colon, argument = re.match(r"(\w*)(:?)\s*(.*)", text, re.S).groups()
    fits = argument in ("", "beside") if verb == "run" else argument or verb == "skip"
    if verb not in WISHES or WISHES[verb] != bool(colon) or not fits:
        raise Wrong(f"{where}: no such comment: {text!r}")
    if verb == "error" and not re.fullmatch(r"[0-9A-Z]{5}", argument):
        raise Wrong(f"{where}: {argument!r} is no SQLSTATE")
    return verb, argument


def blocks(page, name):
    found, wishes = [], []
    for part in PART.finditer(page):
        line = page.count("\n", 0, part.start()) + 1
        if part["wish"] is not None:
            wishes.append(read_wish(part["wish"], f"{name}:{line}"))
            continue
        language = part["language"].lower()
        if "sql" in language and language != "sql":
            raise Wrong(f"{name}:{line}: a block of SQL begins with ```sql, not with ```{part['language']}")
        text = re.sub(rf"^ {{0,{len(part['indent'])}}}", "", part["text"], flags=re.M)
        if wishes and language not in ("sql", "sh"):
            raise Wrong(f"{name}:{line}: a comment for a block that is neither sql nor sh")
        found.append(Block(line, language, text, wishes))
        wishes = []
    if wishes:
        raise Wrong(f"{name}: comments without a block at the end: {wishes}")
    return found


class Brokers:
    """The test's brokers, in the place of those that the documents name."""

    def __init__(self, redis, rabbit, mosquitto):
        self.redis, self.rabbit, self.mosquitto = redis, rabbit, mosquitto
        self._places = {
            "redis": redis.url, "rediss": f"rediss://127.0.0.1:{redis.tls_port}", "amqp": rabbit.url,
            "amqps": f"amqps://guest:guest@127.0.0.1:{rabbit.tls_port}", "mqtt": mosquitto.url,
            "mqtts": f"mqtts://127.0.0.1:{mosquitto.tls_port}", "ws": f"ws://127.0.0.1:{mosquitto.ws_port}",
            "wss": f"wss://127.0.0.1:{mosquitto.wss_port}"}

    def in_place(self, text):
        """The text with our brokers' addresses; virtual hosts, numbers of databases and the like stay."""
        return re.sub(rf"\b({'|'.join(self._places)})://[^/?'\"\s]+", lambda url: self._places[url.group(1)], text)

    def in_place_for_shell(self, text):
        for program, port in (("redis-cli", self.redis.port), ("mosquitto_sub", self.mosquitto.port),
                              ("mosquitto_pub", self.mosquitto.port)):
            text = re.sub(rf"\b{program}\b(?: -p \d+)?", f"{program} -p {port}", text)
        return self.in_place(text)

    def forget(self, page):
        """What an earlier page has left on them."""
        self.redis.client().flushall()
        for queue in set(re.findall(r"queue:(\w+)|queue_declare\('(\w+)'|test: queue (\w+)", page)):
            self.rabbit.do(lambda channel, name="".join(queue): channel.queue_delete(name))
        for exchange in set(re.findall(r"exchange:(\w+)|test: exchange (\w+)", page)):
            self.rabbit.do(lambda channel, name="".join(exchange): channel.exchange_delete(name))


class Psql:
    """One session, as psql shows it."""

    def __init__(self, cluster, database, directory):
        self._said = os.path.join(directory, "psql")
        with open(self._said, "wb") as output:
            self._process = subprocess.Popen(
                [os.path.join(bin_directory(), "psql"), "-X", "-h", cluster.directory, "-p", str(cluster.port), "-U",
                 cluster.superuser, "-v", "VERBOSITY=verbose", "-P", "pager=off", "-d", database, "-f", "-"],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=directory)
        self._runs = 0

    def run(self, sql):
        """What it prints, results and errors."""
        self._runs += 1
        before, end = os.path.getsize(self._said), f"-- end of run {self._runs}"
        self._process.stdin.write(f"{sql}\n\\warn '{end}'\n")
        self._process.stdin.flush()

        def said():
            with open(self._said, "rb") as output:
                output.seek(before)
                text = output.read().decode()
            return text if end in text or self._process.poll() is not None else None

        return eventually(said, DEADLINE, f"psql is done with {sql!r}").partition(end)[0]

    def close(self):
        self._process.stdin.close()
        self._process.wait(DEADLINE)


class Shell:
    """A block of sh in a process group of its own."""

    def __init__(self, text, directory, number):
        self._said = os.path.join(directory, f"sh{number}")
        with open(self._said, "wb") as output:
            self.process = subprocess.Popen(["sh", "-ec", text], stdin=subprocess.DEVNULL, stdout=output,
                                            stderr=subprocess.STDOUT, start_new_session=True, cwd=directory)

    def said(self):
        with open(self._said, "rb") as output:
            return output.read().decode()

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(DEADLINE)


def is_whole(sql):
    """Whether psql is done with the block's last line: a statement without its semicolon would wait for the next block."""
    code = [line for line in (re.sub(r"(?:^|\s)--.*", "", line).strip() for line in sql.splitlines()) if line]
    return not code or code[-1].endswith(";") or code[-1].startswith("\\")


class Page:
    def __init__(self, text, name, brokers, directory, open_session):
        self.text, self.name, self._brokers, self._directory = text, name, brokers, directory
        self._open_session, self._session, self._shells = open_session, None, []

    def run(self):
        """Raises Wrong, which names the line."""
        try:
            for block in blocks(self.text, self.name):
                wishes = collections.defaultdict(list)
                for verb, argument in block.wishes:
                    wishes[verb].append(argument)
                self._check(block, wishes)
                if block.language in ("sql", "sh") and not wishes["skip"]:
                    self._prepare(block)
                    (self._run_sql if block.language == "sql" else self._run_sh)(block, wishes)
                    for sql in wishes["until"]:
                        self._await(block, sql)
            for block, shell, prints in self._shells:
                self._printed(block, prints, shell.said, beside=True)
        finally:
            for _, shell, _ in self._shells:
                shell.close()
            if self._session:
                self._session.close()

    def _check(self, block, wishes):
        if wishes["skip"] and (len(wishes["skip"][0]) < 10 or len(block.wishes) > 1):
            raise self._wrong(block, "what is skipped has a reason, and nothing else")
        if wishes["run"] and block.language != "sh" or wishes["error"] and block.language != "sql":
            raise self._wrong(block, f"a comment that is not for {block.language}")

    def _wrong(self, block, why):
        return Wrong(f"{self.name}:{block.line}: {why}")

    def _sql(self, text):
        if self._session is None:
            self._session = self._open_session()
        return self._session.run(self._brokers.in_place(text))

    def _prepare(self, block):
        for verb, argument in block.wishes:
            if verb in ("queue", "exchange"):
                self._brokers.rabbit.declare(argument, argument if verb == "exchange" else None)
            elif verb == "before":
                said = self._sql(argument + ";")
                if RAISED.search(said):
                    raise self._wrong(block, f"before: {said}")
            elif verb == "await":
                self._await(block, argument)

    def _run_sql(self, block, wishes):
        if not is_whole(block.text):
            raise self._wrong(block, "the last statement has no semicolon")
        said = self._sql(block.text)
        raised = [error["state"] or "psql" for error in RAISED.finditer(said)]
        if raised != wishes["error"]:
            raise self._wrong(block, f"raises {raised or 'nothing'} instead of {wishes['error'] or 'nothing'}:\n{said}")
        self._printed(block, wishes["prints"], lambda: said)

    def _run_sh(self, block, wishes):
        if not wishes["run"]:
            return
        text = self._brokers.in_place_for_shell(block.text)
        beside = wishes["run"] == ["beside"]
        if beside:  # mosquitto_sub says when it has subscribed, and nothing before its buffer is full
            text = text.replace("mosquitto_sub ", "stdbuf -oL mosquitto_sub -d ")
        shell = Shell(text, self._directory, block.line)
        self._shells.append((block, shell, wishes["prints"] if beside else []))
        if beside:
            eventually(lambda: "Subscribed (mid" in shell.said(), DEADLINE, f"{shlex.quote(text)} has subscribed")
        elif shell.process.wait(DEADLINE) != 0:
            raise self._wrong(block, f"ends with {shell.process.returncode}:\n{shell.said()}")
        else:
            self._printed(block, wishes["prints"], shell.said)

    def _await(self, block, sql):
        def holds():
            said = self._sql(f"\\pset format unaligned\n\\pset tuples_only on\n{sql};\n"
                             "\\pset format aligned\n\\pset tuples_only off")
            error = RAISED.search(said)
            return error or "t" in said.splitlines()

        error = eventually(holds, DEADLINE, f"{self.name}:{block.line}: {sql}")
        if error is not True:
            raise self._wrong(block, f"until: {error.group()}")

    def _printed(self, block, prints, said, beside=False):
        for pattern in prints:
            if beside:
                eventually(lambda pattern=pattern: re.search(pattern, said(), re.M), DEADLINE,
                           f"{self.name}:{block.line} prints {pattern!r}")
            elif not re.search(pattern, said(), re.M):
                raise self._wrong(block, f"does not print {pattern!r}, but\n{said()}")
