# What it is: an MQTT broker of a few lines, which answers as a test says: something else, or nothing.
# Who calls it: the live tests.
# Never: passes a message on; what it has got is in `published`.
import socket
import threading
from dataclasses import dataclass

CONNECT, PUBLISH, PUBREL, PINGREQ = 1, 3, 6, 12
CONNACK, PUBACK, PUBREC, PUBCOMP, PINGRESP, DISCONNECT = 2, 4, 5, 7, 13, 14


@dataclass
class Published:
    topic: str
    payload: bytes
    qos: int
    id: int
    again: bool
    connection: int  # the how-manieth


class Session:
    """One connection, as answer() sees it."""

    def __init__(self, server, connection, number):
        self.server, self.connection, self.number = server, connection, number
        self.version = 5

    def send(self, type, body=b""):
        self.connection.sendall(bytes([type << 4 | (2 if type == PUBREL else 0), len(body)]) + body)

    def answer(self, type, id, code=0):
        self.send(type, id.to_bytes(2, "big") + (bytes([code]) if code and self.version == 5 else b""))

    def disconnect(self, code):
        self.send(DISCONNECT, bytes([code]))
        self.connection.shutdown(socket.SHUT_RDWR)


class FakeMqtt:
    """answer(session, published) is called with each PUBLISH; by default, all are acknowledged. greets: versions that
    are let in; a CONNECT of another one is answered by nothing. hangs_up(session, connects): on that CONNECT, if true."""

    def __init__(self, answer=None, greets=(5, 4), hangs_up=None):
        self.published, self.connects = [], []  # connects: (version, client id)
        self._answer, self._greets = answer or self.acknowledge, greets
        self._hangs_up = hangs_up or (lambda session, connects: False)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._open = []

    @staticmethod
    def acknowledge(session, published):
        if published.qos:
            session.answer(PUBACK if published.qos == 1 else PUBREC, published.id)

    def payloads(self):
        return [published.payload for published in list(self.published)]

    def cut(self):
        """Ends all connections."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                pass

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, len(self._open)), daemon=True).start()

    def _serve(self, connection, number):
        session = Session(self, connection, number)
        try:
            with connection, connection.makefile("rb") as reader:
                while packet := self._read(reader):
                    self._take(session, *packet)
        except (OSError, ValueError):
            pass

    @staticmethod
    def _number(reader):
        value = shift = 0
        while True:
            byte = reader.read(1)[0]
            value |= (byte & 0x7f) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _read(self, reader):
        first = reader.read(1)
        return (first[0], reader.read(self._number(reader))) if first else None

    def _take(self, session, first, body):
        type = first >> 4
        if type == CONNECT:
            session.version = body[6]
            at = 10 + (1 + body[10] if session.version == 5 else 0)
            length = int.from_bytes(body[at:at + 2], "big")
            self.connects.append((session.version, body[at + 2:at + 2 + length].decode()))
            if self._hangs_up(session, len(self.connects)):
                session.connection.shutdown(socket.SHUT_RDWR)
            elif session.version in self._greets:
                session.send(CONNACK, b"\0\0\0" if session.version == 5 else b"\0\0")
        elif type == PUBLISH:
            length = int.from_bytes(body[:2], "big")
            topic, body, qos = body[2:2 + length].decode(), body[2 + length:], first >> 1 & 3
            id, body = (int.from_bytes(body[:2], "big"), body[2:]) if qos else (0, body)
            if session.version == 5:
                properties = shift = at = 0
                while True:
                    properties |= (body[at] & 0x7f) << shift
                    shift, at = shift + 7, at + 1
                    if body[at - 1] < 0x80:
                        break
                body = body[at + properties:]
            published = Published(topic, body, qos, id, bool(first & 8), session.number)
            self.published.append(published)
            self._answer(session, published)
        elif type == PUBREL:
            session.send(PUBCOMP, body[:2])
        elif type == PINGREQ:
            session.send(PINGRESP)

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
