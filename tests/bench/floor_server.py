"""The smallest server that the shim can talk to: it reads the request, and sends one fixed reply.

python -m tests.bench.floor_server SOCKET    prints a line once it listens
"""

import socket
import struct
import sys

BODY = b'{"cniVersion": "1.1.0", "code": 4, "msg": "CNI_COMMAND=NONE is invalid"}\n'
REPLY = struct.pack("=4sIIII", b"PWRP", 2, 1, len(BODY), 0) + BODY  # PROTOCOL.md


def main(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            connection.recv(1 << 16)
            connection.sendall(REPLY)
            connection.close()


if __name__ == "__main__":
    main(sys.argv[1])
