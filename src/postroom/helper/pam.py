"""Asks PAM whether a password is right, by way of the system's libpam.

Blocks for as long as its modules like, and they may do anything to the process: to be
called in a process of its own that is thrown away afterwards. What PAM cannot say is
``Broken``; nothing raises.
"""

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from typing import Any

from postroom.helper.requests import Answer, Broken, Denied, Granted, Request

LIBRARY = "libpam.so.0"

# security/_pam_types.h
_SUCCESS = 0
_PROMPT_ECHO_OFF = 1
_CONV_ERR = 19
_USER, _RHOST = 2, 4
_SILENT, _NO_EMPTY_PASSWORD = 0x8000, 0x1
# The errors after which another try may go better: a module is missing or broken, its
# directory does not answer. All others count as a no, also the "system error" by which
# pam_exec tells that its program said no: guesses must not be free.
_OPEN_ERR, _SYMBOL_ERR, _SERVICE_ERR, _BUF_ERR, _AUTHINFO_UNAVAIL = 1, 2, 3, 5, 9
_ABORT, _MODULE_UNKNOWN = 26, 28
_TEMPORARY = frozenset(
    (
        _OPEN_ERR,
        _SYMBOL_ERR,
        _SERVICE_ERR,
        _BUF_ERR,
        _AUTHINFO_UNAVAIL,
        _CONV_ERR,
        _ABORT,
        _MODULE_UNKNOWN,
    )
)
_MESSAGES_MAX = 32


class _Message(ctypes.Structure):
    _fields_ = (("style", c_int), ("text", c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", c_void_p), ("code", c_int))


_CONVERSE = CFUNCTYPE(
    c_int, c_int, POINTER(POINTER(_Message)), POINTER(POINTER(_Response)), c_void_p
)


class _Conversation(ctypes.Structure):
    _fields_ = (("function", _CONVERSE), ("data", c_void_p))


def check(request: Request, service: str, directory: str = "") -> Answer:
    """Ask PAM.

    Args:
        request: user and password.
        service: the PAM service: what file of ``/etc/pam.d`` says what is asked.
        directory: look for that file here, and nowhere else.
    """
    if "\0" in request.user or b"\0" in request.password or not request.user:
        return Denied("a NUL in user or password")
    try:
        library = _library()
    except OSError as error:
        return Broken(f"{LIBRARY} cannot be loaded ({error}): install libpam")
    try:
        return _Transaction(library, request).run(service, directory)
    except AttributeError as error:
        return Broken(f"{LIBRARY} is too old: {error}")


class _Transaction:
    """One conversation with PAM."""

    def __init__(self, library: ctypes.CDLL, request: Request) -> None:
        self._pam = library
        self._request = request
        self._handle = c_void_p()
        # Kept here: PAM calls it until the end.
        self._function = _CONVERSE(self._converse)
        self._conversation = _Conversation(self._function, None)

    def run(self, service: str, directory: str) -> Answer:
        start = self._start(service, directory)
        if start != _SUCCESS:
            return Broken(f"PAM service {service}: error {start} at the start")
        code = _SUCCESS
        try:
            code = self._ask()
            return self._judged(code)
        finally:
            self._pam.pam_end(self._handle, code)

    def _start(self, service: str, directory: str) -> int:
        given: tuple[Any, ...] = (
            service.encode(),
            self._request.user.encode(),
            byref(self._conversation),
        )
        start: Callable[..., int] = self._pam.pam_start
        if directory:
            start, given = self._pam.pam_start_confdir, (*given, directory.encode())
        return start(*given, byref(self._handle))

    def _ask(self) -> int:
        pam, handle = self._pam, self._handle
        if self._request.client_ip:
            pam.pam_set_item(handle, _RHOST, self._request.client_ip.encode())
        code: int = pam.pam_authenticate(handle, _SILENT | _NO_EMPTY_PASSWORD)
        if code == _SUCCESS:
            code = pam.pam_acct_mgmt(handle, _SILENT | _NO_EMPTY_PASSWORD)
        return code

    def _judged(self, code: int) -> Answer:
        if code == _SUCCESS:
            user = c_char_p()
            self._pam.pam_get_item(self._handle, _USER, byref(user))
            return Granted((user.value or b"").decode("utf-8", "replace"))
        text = c_char_p(self._pam.pam_strerror(self._handle, code)).value or b""
        reason = f"PAM: {text.decode('utf-8', 'replace')}"
        return Broken(reason) if code in _TEMPORARY else Denied(reason)

    def _converse(self, count: int, messages: Any, responses: Any, _: Any) -> int:
        """Answer PAM: every hidden prompt is for the password, nothing else is said."""
        if not 0 < count <= _MESSAGES_MAX:
            return _CONV_ERR
        # PAM frees what it gets, so it has to come from malloc.
        size = ctypes.sizeof(_Response)
        made = ctypes.cast(_libc.calloc(count, size), POINTER(_Response))
        if not made:
            return _CONV_ERR
        for index in range(count):
            if messages[index].contents.style == _PROMPT_ECHO_OFF:
                made[index].text = _libc.strdup(self._request.password)
        responses[0] = made
        return _SUCCESS


def _library() -> ctypes.CDLL:
    pam = ctypes.CDLL(LIBRARY)
    pam.pam_start.argtypes = (c_char_p, c_char_p, c_void_p, c_void_p)
    pam.pam_authenticate.argtypes = (c_void_p, c_int)
    pam.pam_acct_mgmt.argtypes = (c_void_p, c_int)
    pam.pam_set_item.argtypes = (c_void_p, c_int, c_char_p)
    pam.pam_get_item.argtypes = (c_void_p, c_int, c_void_p)
    pam.pam_end.argtypes = (c_void_p, c_int)
    pam.pam_strerror.argtypes = (c_void_p, c_int)
    pam.pam_strerror.restype = c_char_p
    return pam


_libc = ctypes.CDLL(None)
_libc.calloc.argtypes = (c_size_t, c_size_t)
_libc.calloc.restype = c_void_p
_libc.strdup.argtypes = (c_char_p,)
_libc.strdup.restype = c_void_p
