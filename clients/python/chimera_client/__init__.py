"""Client for the Chimera daemon over ZeroMQ (protocol chimera/1, see clients/PROTOCOL.md).

    from chimera_client import Client

    with Client() as client:
        for token in client.generate("The parties agree", max_tokens=32):
            print(token.text, end="", flush=True)
        print(client.score("The parties agree that").bits_per_byte)
        client.load("/srv/modules/legal")
"""

from .client import (Client, Embedding, Event, Generation, Score, Token, default_control_endpoint,
                     default_serve_endpoint, receipt_text)
from .errors import (AlreadyExists, Cancelled, ChimeraError, DataCorrupt, DeadlineExceeded,
                     FailedPrecondition, Internal, InvalidArgument, NotFound, PermissionDenied,
                     ResourceExhausted, Unavailable, Unimplemented)

# That of the project (CMakeLists.txt); pyproject.toml takes it from here.
__version__ = "0.1.0"

__all__ = [
    "AlreadyExists", "Cancelled", "ChimeraError", "Client", "DataCorrupt", "DeadlineExceeded",
    "Embedding", "Event", "FailedPrecondition", "Generation", "Internal", "InvalidArgument",
    "NotFound", "PermissionDenied", "ResourceExhausted", "Score", "Token", "Unavailable",
    "Unimplemented", "default_control_endpoint", "default_serve_endpoint", "receipt_text",
]
