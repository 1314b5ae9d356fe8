"""The same child as a WSGI application: gunicorn knows no other kind."""

import os

import lmdb
import msgspec
import zmq

IMPORTED = (lmdb, msgspec, zmq)


def app(environ, start_response):
    """Tell the pid."""
    body = b"%d" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
