"""The health check of a container: exit with 0 if the API in it is ready.

It imports little, and only the standard library, because it runs several times a second while a container starts.
"""

import socket

PORT = 8000  # in every container; API_PORT is the port outside


def main() -> None:
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=4) as connection:
            connection.sendall(b"GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError as error:
        raise SystemExit(f"The API does not answer on port {PORT}: {error}") from None
    status, _, body = answer.partition(b"\r\n")
    if status.split(b" ")[1:2] != [b"200"]:
        raise SystemExit(body.rpartition(b"\r\n")[2].decode(errors="replace"))


if __name__ == "__main__":
    main()
