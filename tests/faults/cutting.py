"""A server's port behind another one, whose connections can be cut after any byte."""

from __future__ import annotations

import selectors
import socket
import struct
import threading


class Cutter:
    """Passes bytes on between clients and the server at `target`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._left: int | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="cutter", daemon=True).start()

    def cut_after(self, count: int) -> None:
        """Cut the connection over which the `count`-th byte from now on comes from the server."""
        with self._lock:
            self._left = count

    def spare(self) -> bool:
        """Cut none any more; says whether one was cut."""
        with self._lock:
            cut, self._left = self._left is None, None
            return cut

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], name="cut", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket() as server, selectors.DefaultSelector() as waiting:
            try:
                server.connect(("127.0.0.1", self._target))
                waiting.register(client, selectors.EVENT_READ, server)
                waiting.register(server, selectors.EVENT_READ, client)
                while True:
                    for key, _ in waiting.select():
                        source, sink = key.fileobj, key.data
                        assert isinstance(source, socket.socket)
                        data = source.recv(1 << 16)
                        room = self._room(len(data)) if source is server else len(data)
                        sink.sendall(data[:room])
                        if not data or room < len(data):
                            return self._reset(client) if data else None
            except OSError:
                return None

    def _room(self, size: int) -> int:
        """How many of `size` bytes get through."""
        with self._lock:
            if self._left is None:
                return size
            room = min(self._left, size)
            self._left -= room
            if room < size:
                self._left = None
            return room

    def _reset(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
