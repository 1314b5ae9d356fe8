"""``python -m homeostat.proto.schema`` prints the JSON Schema of every client message.

Owns: nothing but the printing.
Must not know: anything beyond codec.json_schema.
Invariant: what is printed is made from the structs that run.
Source: DESIGN §13; JSON Schema 2020-12.
"""

import json
import os
import sys

from .codec import json_schema

if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # ``| head`` has read enough; the interpreter's own flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
