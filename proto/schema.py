"""``python -m homeostat.proto.schema`` prints the JSON Schema of every client message.

Owns: nothing but the printing.
Must not know: anything beyond codec.json_schema.
Invariant: what is printed is made from the structs that run.
Source: DESIGN §13; JSON Schema 2020-12.
"""

import json
import sys

from .codec import json_schema

if __name__ == "__main__":
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
