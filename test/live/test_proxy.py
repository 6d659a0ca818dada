# What it is: the proxy that the tests of faults rely on does what its modes say.
# Who calls it: pytest.
# Never: needs a broker or a database.
import contextlib
import socket
import threading
import time

import pytest

from servers import eventually


class Echo:
    """Answers every byte with the same byte; got: all that it was sent."""

    def __init__(self):
        self.got, self._listener = bytearray(), socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._listener.accept()[0],), daemon=True).start()

    def _answer(self, connection):
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(4096):
                self.got += data
                connection.sendall(data)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(make_proxy, echo):
    return make_proxy(echo)


@pytest.fixture
def client(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as connection:
        yield connection


def exchange(connection, data):
    """How long the answer took."""
    begun = time.monotonic()
    connection.sendall(data)
    received = bytearray()
    while len(received) < len(data):
        part = connection.recv(65536)
        assert part, f"the connection ended after {len(received)} bytes"
        received += part
    assert received == data
    return time.monotonic() - begun


def is_cut(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_passes_bytes_both_ways_and_counts_them(proxy, client):
    exchange(client, b"x" * 1_000_000)
    eventually(lambda: (proxy.connections, proxy.to_server, proxy.to_client) == (1, 1_000_000, 1_000_000),
               why="a byte is counted after it has gone")


def test_refuses_cuts_what_stands_and_listens_again(proxy, client):
    exchange(client, b"a")
    proxy.refuse()
    assert is_cut(client)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 5)
    proxy.pass_on()
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as again:
        exchange(again, b"b")


def test_black_hole_takes_everything_and_answers_nothing(proxy, client, echo):
    exchange(client, b"before")
    proxy.black_hole()
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as second:
        for connection in (client, second):
            connection.sendall(b"swallowed")
        eventually(lambda: proxy.swallowed == 18)
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.pass_on()
        assert is_cut(client) and is_cut(second)
    assert bytes(echo.got) == b"before"


def test_delays_each_way(proxy, client):
    proxy.delay(0.2)
    assert exchange(client, b"x" * 100_000) >= 0.4


def test_dribbles_bytes(proxy, client, echo):
    proxy.dribble(0.002)
    assert exchange(client, b"x" * 100) >= 0.2
    proxy.dribble(60)
    client.sendall(b"y" * 100)
    eventually(lambda: len(echo.got) == 101, why="the first byte has gone")
    proxy.pass_on()
    eventually(lambda: len(echo.got) == 200, why="the rest goes at once")


def test_holds_answers_until_they_may_go(proxy, client, echo):
    proxy.hold_answers()
    client.sendall(b"abc")
    eventually(lambda: proxy.held == 3 and bytes(echo.got) == b"abc")
    assert proxy.to_client == 0
    proxy.pass_on()
    assert client.recv(3) == b"abc"


def test_cuts_between_question_and_answer(proxy, client, echo):
    proxy.hold_answers()
    client.sendall(b"abc")
    eventually(lambda: proxy.held == 3)
    proxy.cut()
    assert is_cut(client) and bytes(echo.got) == b"abc" and proxy.cuts == 1
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as again:
        exchange(again, b"d")


def test_cuts_after_so_many_bytes(proxy, client, echo):
    exchange(client, b"ab")
    proxy.cut_after_bytes(3)
    client.sendall(b"cdefgh")
    eventually(lambda: proxy.cuts == 1)
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as again:
        exchange(again, b"!")
    assert bytes(echo.got) == b"abcde!"
