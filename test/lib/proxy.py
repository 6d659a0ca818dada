# What it is: a TCP proxy between a sender and its broker that misbehaves on request, while it runs.
# Who calls it: the live tests of faults.
# Never: looks into the protocol, or outlives its test.
import queue
import selectors
import socket
import struct
import threading
import time
from collections import deque

from processes import free_port

_CHUNK = 64 * 1024
_MOST_WAITING = 16 * 1024 * 1024  # of one direction of one connection; then it reads no more
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST and drops what was not sent


class _Flow:
    """One direction of a connection: what was read from `source` and still has to be written to `target`."""

    def __init__(self, source, target, answers):
        self.source, self.target, self.answers = source, target, answers
        self.waiting, self.size = deque(), 0  # (when it may go, bytes)
        self.ended = False                    # the source has sent its last byte
        self.stuck = False                    # the target takes no more for now
        self.next_at = 0.0                    # dribble: not before

    def put(self, due, data):
        self.waiting.append((due, data))
        self.size += len(data)

    def hurry(self):
        self.waiting = deque((0.0, data) for _, data in self.waiting)
        self.next_at = 0.0

    def send(self, now, most):
        """Writes what is due, at most so many bytes; how many were written."""
        sent = 0
        self.stuck = False
        while self.waiting and sent < most and now >= max(self.waiting[0][0], self.next_at):
            due, data = self.waiting.popleft()
            try:
                done = self.target.send(data[:most - sent])
            except BlockingIOError:
                done, self.stuck = 0, True
            sent += done
            if done < len(data):
                self.waiting.appendleft((due, data[done:]))
            if self.stuck:
                break
        self.size -= sent
        return sent


class _Pair:
    def __init__(self, client, server):
        self.up, self.down = _Flow(client, server, False), _Flow(server, client, True)
        self.flows = (self.up, self.down)

    def sockets(self):
        return [end for end in (self.up.source, self.down.source) if end]


class Proxy:
    """Listens on a port of its own and passes on to a server on loopback.

        with Proxy(server.port) as proxy:      # passes everything on
            proxy.delay(2)                     # what a mode's method has returned from is in force

    connections: accepted so far. to_server, to_client: bytes passed on. held: bytes of the server's that the client has
    not got. swallowed: bytes that went into the black hole. cuts: connections that were cut."""

    def __init__(self, server_port):
        self.server_port, self.port = server_port, free_port()
        self.connections = self.to_server = self.to_client = self.swallowed = self.cuts = 0
        self._mode, self._number = "pass", None
        self._pairs, self._listener = [], None
        self._selector = selectors.SelectSelector()  # its timeouts are not rounded to milliseconds
        self._orders, self._ending = queue.SimpleQueue(), False
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._run, daemon=True)

    # What a test says

    def pass_on(self):
        """All is well again. What was delayed or held goes at once; connections whose bytes were swallowed are cut."""
        self._order(lambda: self._enter("pass"))

    def refuse(self):
        """Nobody listens: connection refused. Connections that stand are cut."""
        self._order(lambda: self._enter("refuse"))

    def black_hole(self):
        """Takes connections and bytes, passes nothing on, answers nothing; connections that stand as well."""
        self._order(lambda: self._enter("black_hole"))

    def delay(self, seconds):
        """Each way."""
        self._order(lambda: self._enter("delay", seconds))

    def dribble(self, seconds=0.001):
        """One byte at a time, so many seconds apart, each way."""
        self._order(lambda: self._enter("dribble", seconds))

    def hold_answers(self):
        """The server gets everything, the client nothing: what is published is not acknowledged."""
        self._order(lambda: self._enter("hold"))

    def cut(self):
        """Resets every connection; what was held or delayed is lost. New connections pass."""
        self._order(lambda: (self._cut_all(), self._enter("pass")))

    def cut_after_bytes(self, count):
        """Passes so many more bytes on to the server, then does as cut() does."""
        self._order(lambda: self._enter("cut_after", count))

    @property
    def held(self):
        return sum(pair.down.size for pair in list(self._pairs))

    def __enter__(self):
        self._listen()
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._order(lambda: (self._cut_all(), self._enter("refuse"), setattr(self, "_ending", True)))
        self._thread.join()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _order(self, action):
        done = threading.Event()
        self._orders.put((action, done))
        self._wake_in.send(b"x")
        if not done.wait(30):
            raise AssertionError("the proxy's thread does not answer")

    # In the proxy's thread

    def _enter(self, mode, number=None):
        left, self._mode, self._number = self._mode, mode, number
        if mode == "refuse":
            self._cut_all()
            self._stop_listening()
        elif self._listener is None:
            self._listen()
        if left == "black_hole":
            self._cut_all()
        for pair in self._pairs:
            for flow in pair.flows:
                flow.hurry()

    def _listen(self):
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self):
        if self._listener:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _run(self):
        while not self._ending:
            ready = {key.fileobj for key, _ in self._selector.select(self._patience())}
            if self._wake_out in ready:
                self._wake_out.recv(4096)
            while not self._orders.empty():
                action, done = self._orders.get()
                action()
                done.set()
            if self._listener in ready:
                self._accept()
            for pair in list(self._pairs):
                self._serve(pair, ready)
            self._watch()

    def _patience(self):
        """Until the first byte that waits is due; None: until something happens."""
        times = [max(flow.waiting[0][0], flow.next_at) for flow in self._flows()
                 if flow.waiting and not flow.stuck and not self._holds(flow)]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _flows(self):
        return [flow for pair in self._pairs for flow in pair.flows]

    def _holds(self, flow):
        return self._mode == "black_hole" or (self._mode == "hold" and flow.answers)

    def _accept(self):
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self.connections += 1
        server = None
        if self._mode != "black_hole":
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), 5)
            except OSError:
                client.close()
                return
        for end in (client, server):
            if end:
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append(_Pair(client, server))

    def _serve(self, pair, ready):
        try:
            for flow in pair.flows:
                if flow.source in ready and not flow.ended:
                    self._read(flow)
            for flow in pair.flows:
                self._write(flow)
        except OSError:
            self._drop(pair)
            return
        if any(flow.ended and not flow.waiting for flow in pair.flows):
            self._drop(pair)

    def _read(self, flow):
        try:
            data = flow.source.recv(_CHUNK)
        except BlockingIOError:
            return
        if not data:
            flow.ended = True
        elif self._mode == "black_hole":
            self.swallowed += len(data)
        else:
            flow.put(time.monotonic() + (self._number if self._mode == "delay" else 0.0), data)

    def _write(self, flow):
        if self._holds(flow):
            return
        now, most = time.monotonic(), _CHUNK
        if self._mode == "dribble":
            most = 1
        elif self._mode == "cut_after" and not flow.answers:
            most = self._number
        sent = flow.send(now, most)
        if self._mode == "dribble" and sent:
            flow.next_at = now + self._number
        if flow.answers:
            self.to_client += sent
            return
        self.to_server += sent
        if self._mode == "cut_after":
            self._number -= sent
            if self._number <= 0:
                self._cut_all()
                self._enter("pass")

    def _watch(self):
        """Which ends are worth waking up for."""
        for pair in self._pairs:
            wanted = {}
            for flow in pair.flows:
                if flow.source and not flow.ended and flow.size < _MOST_WAITING:
                    wanted[flow.source] = wanted.get(flow.source, 0) | selectors.EVENT_READ
                if flow.stuck:
                    wanted[flow.target] = wanted.get(flow.target, 0) | selectors.EVENT_WRITE
            for end in pair.sockets():
                self._watch_end(end, wanted.get(end, 0))

    def _watch_end(self, end, events):
        known = self._selector.get_map().get(end)
        if events and known is None:
            self._selector.register(end, events)
        elif events and known.events != events:
            self._selector.modify(end, events)
        elif not events and known is not None:
            self._selector.unregister(end)

    def _cut_all(self):
        for pair in list(self._pairs):
            self.cuts += 1
            for end in pair.sockets():
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._drop(pair)

    def _drop(self, pair):
        if pair not in self._pairs:
            return
        self._pairs.remove(pair)
        for end in pair.sockets():
            self._watch_end(end, 0)
            end.close()
