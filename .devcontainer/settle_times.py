"""Give every installed module a time that follows from its content, which the installer has written down.

What Python compiled of it is kept in the home, and counts as long as time and size are the same. So after a rebuild
with another lock, only what really changed is compiled anew.
"""

import csv
import os
import sysconfig
from base64 import urlsafe_b64decode
from pathlib import Path

BYTES = 4

for record in Path(sysconfig.get_path("purelib")).glob("*.dist-info/RECORD"):
    with record.open(encoding="utf-8", newline="") as lines:
        for name, digest, _ in csv.reader(lines):
            path = record.parent.parent / name
            if name.endswith(".py") and digest and path.exists():
                # Of the content's hash, whichever it is, as many bits as make a time that every file system knows. What
                # the record leaves out of padding is two signs at the most, and more than is wanted does no harm.
                number = (
                    int.from_bytes(urlsafe_b64decode(digest.partition("=")[2] + "==")[:BYTES], "big") >> 1
                )
                os.utime(path, (number, number))
