"""Exit with 0 if the node in this container answers. It has few imports: it runs for as long as the node does."""

import os
import socket
import sys

settings = os.environ.get
connection = socket.create_connection(("127.0.0.1", int(settings("FN_PORT", "8080"))), 4)
if settings("FN_TLS_CLIENT_CA") and settings("FN_TLS_CLIENT_AUTH") != "admin":
    sys.exit()  # no certificate to show here: a node that accepts connections has to be enough
if settings("FN_TLS_CERT"):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate is for the names that others use
    context.verify_mode = ssl.CERT_NONE
    connection = context.wrap_socket(connection)
connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
sys.exit(0 if b" 200 " in connection.recv(64) else 1)
