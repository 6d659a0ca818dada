# What it is: a consumer of a RabbitMQ queue that keeps what it hears.
# Who calls it: RabbitNode.listener(), for the live tests.
# Never: gives up because the node has gone.
import threading
import time

import pika


class Listener:
    """Consumes a queue in a thread of its own, also when the node goes and comes back.

        with rabbit.listener("queue") as heard:
            ...
            heard.bodies()"""

    def __init__(self, node, queue, vhost):
        self.node, self.queue, self.vhost = node, queue, vhost
        self.messages = []  # (time of arrival by time.monotonic(), properties, body)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def bodies(self):
        return [body for _, _, body in list(self.messages)]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()

    def _run(self):
        while not self._stopping.is_set():
            try:
                self._listen()
            except (pika.exceptions.AMQPError, OSError):
                self._stopping.wait(0.05)

    def _listen(self):
        connection = self.node.connection(self.vhost)
        channel = connection.channel()
        channel.basic_qos(prefetch_count=500)
        for method, properties, body in channel.consume(self.queue, inactivity_timeout=0.05):
            if method:
                self.messages.append((time.monotonic(), properties, body))
                channel.basic_ack(method.delivery_tag)
            if self._stopping.is_set():
                break
        connection.close()
