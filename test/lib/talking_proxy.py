# What it is: a Redis proxy that answers in its own words while its server is said to be away, as load balancers do.
# Who calls it: the live tests of Redis behind something.
# Never: outlives its test, or changes what it passes on.
import socket
import threading

from processes import free_port


class TalkingProxy:
    """Understands commands, so that it can answer each.

        with TalkingProxy(server.port) as proxy:
            proxy.say("ERR Connection refused")     # to every command from now on
            proxy.say("ERR odd", about=b"poison")   # to commands with these bytes in them
        proxy.say(":1", about=b"XADD")          # what begins as another kind of answer is that
            proxy.pass_on()

    closes_at: hangs up at these commands, as twemproxy does at what it does not know. said: answers of its own."""

    def __init__(self, server_port, closes_at=()):
        self.server_port, self.port = server_port, free_port()
        self.closes_at, self.said = {name.upper() for name in closes_at}, 0
        self._words, self._about = None, b""
        self._sockets, self._lock, self._ending = set(), threading.Lock(), False

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def say(self, words, about=b""):
        self._about = about
        self._words = words if words[0] in "+:$*" else f"-{words}"

    def pass_on(self):
        self._words = None

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending = True
        with self._lock:
            for end in [self._listener, *self._sockets]:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()
        self._thread.join(30)

    def _accept(self):
        while not self._ending:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.server_port))
        except OSError:
            return client.close()
        with self._lock:
            self._sockets |= {client, server}
        try:
            asks, answers = client.makefile("rb"), server.makefile("rb")
            while (command := _read(asks)) is not None:
                if command.split(b"\r\n")[2].decode().upper() in self.closes_at:
                    return
                words = self._words
                if words is not None and self._about in command:
                    self.said += 1
                    client.sendall(f"{words}\r\n".encode(errors="surrogateescape"))
                    continue
                server.sendall(command)
                answer = _read(answers)
                if answer is None:
                    return
                client.sendall(answer)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._sockets -= {client, server}
            client.close()
            server.close()


def _read(stream):
    """The bytes of one RESP value; None at the end."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        return None
    kind, rest = line[:1], line[1:-2]
    if kind == b"$" and int(rest) >= 0:
        body = stream.read(int(rest) + 2)
        return line + body if len(body) == int(rest) + 2 else None
    if kind == b"*":
        for _ in range(max(int(rest), 0)):
            part = _read(stream)
            if part is None:
                return None
            line += part
    return line
