"""What every supervisor under test keeps alive: imports as a worker of ours does, then answers on a socket.

supervised_child.py SOCKET: listens there (SOCK_SEQPACKET) and tells everyone who asks its pid.
"""

import os
import socket
import sys

import lmdb
import msgspec
import zmq

IMPORTED = (lmdb, msgspec, zmq)

if __name__ == "__main__":
    path = sys.argv[1]
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(16)
    while True:
        caller, _ = listener.accept()
        with caller:
            try:
                if caller.recv(16):
                    caller.send(b"%d" % os.getpid())
            except OSError:
                pass  # It has not waited for its answer.
