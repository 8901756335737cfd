"""`health` asked through czmq, by ctypes: czmq_client.py LIBRARY ENDPOINT CERTIFICATE SERVER.

A program of its own, as czmq keeps a context and handlers of signals for the process."""
import ctypes
import sys

REQ, PATIENCE_MS = 3, 60_000


def main(library: str, endpoint: str, own: str, server: str) -> int:
    czmq = ctypes.CDLL(library)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, *arguments in (
            ("zcert_load", pointer, text), ("zcert_public_txt", text, pointer),
            ("zcert_apply", None, pointer, pointer), ("zsock_new", pointer, ctypes.c_int),
            ("zsock_set_curve_serverkey", None, pointer, text),
            ("zsock_set_linger", None, pointer, ctypes.c_int),
            ("zsock_set_rcvtimeo", None, pointer, ctypes.c_int),
            ("zmsg_recv", pointer, pointer), ("zmsg_popstr", text, pointer)):
        getattr(czmq, name).restype, getattr(czmq, name).argtypes = result, arguments
    certificate, of_server = czmq.zcert_load(own.encode()), czmq.zcert_load(server.encode())
    socket = czmq.zsock_new(REQ)
    czmq.zsock_set_linger(socket, 0)
    czmq.zsock_set_rcvtimeo(socket, PATIENCE_MS)
    czmq.zcert_apply(certificate, socket)
    czmq.zsock_set_curve_serverkey(socket, czmq.zcert_public_txt(of_server))
    if czmq.zsock_connect(pointer(socket), text(b"%s"), text(endpoint.encode())) != 0:
        return 2
    czmq.zstr_sendx(pointer(socket), text(b"CHIMERA/1"), text(b'{"id":"a","call":"health"}'), None)
    answer = czmq.zmsg_recv(socket)
    if answer:
        czmq.zmsg_popstr(answer)
        print(czmq.zmsg_popstr(answer).decode())
    czmq.zsock_destroy(ctypes.byref(pointer(socket)))  # else czmq tells of it where the answer goes
    return 0 if answer else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
