"""What travels between the normaliser's processes and their parent. No I/O.

A request is a kind byte, the payload's length (4 bytes, big endian) and the payload; an answer is a kind
byte, two lengths, a JSON header and a body.
"""

import struct
from typing import Final

PICTURE: Final = b"P"
HOOK: Final = b"T"
HELLO: Final = b"H"
DONE: Final = b"D"
FAILED: Final = b"F"
REQUEST: Final = struct.Struct("!cI")
ANSWER: Final = struct.Struct("!cII")
# The parent believes no length beyond these.
MOST_HEADER: Final = 2**16
MOST_BODY: Final = 2**26
