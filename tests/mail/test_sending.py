"""Sending: to a real SMTP server, with TLS and a login, and into a folder."""

import socket
import ssl
import stat
import subprocess
import time
from contextlib import closing
from smtplib import SMTPAuthenticationError, SMTPException, SMTPRecipientsRefused
from threading import Thread

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from phresh import create_app
from phresh.mail import sending

NAMES = {"username": "anna", "link": "https://phresh.example/#token=abc", "minutes": 60}
TO = "anna@phresh.example"


class Inbox:
    """What a server does with mail."""

    def __init__(self):
        self.mails = []
        self.answer = "250 OK"
        self.of_recipient = "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if self.of_recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.of_recipient

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if self.answer.startswith("250"):
            self.mails.append((envelope.rcpt_tos, envelope.content))
        return self.answer


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def smtp():
    """Start SMTP servers on free ports of the loopback; gives the inbox and the port."""
    started = []

    def start(**options):
        inbox = Inbox()
        controller = Controller(inbox, hostname="127.0.0.1", port=0, **options)
        controller.port = _free_port()
        controller.start()
        started.append(controller)
        return inbox, controller.port

    yield start
    for controller in started:
        controller.stop()


def _free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def send(settings):
    """Send a mail by a URL."""

    def send_by(url, to=TO):
        values = {"MAIL_URL": url, "PUBLIC_URL": "http://localhost:8000"}
        app = create_app({**settings, "MAIL_FROM": "phresh@phresh.example", **values})
        with app.app_context():
            sending.send("recovery", "en", to, **NAMES)
        return app

    return send_by


def context_of(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def trusted(certificate, monkeypatch):
    """Have clients trust the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))


def authenticator(server, session, envelope, mechanism, data):
    is_right = isinstance(data, LoginPassword) and data.password == b"p@ss word"
    return AuthResult(success=is_right, handled=False)


def test_a_mail_is_delivered(smtp, send):
    inbox, port = smtp()
    send(f"smtp://127.0.0.1:{port}")
    [(recipients, content)] = inbox.mails
    assert recipients == [TO]
    assert b"Subject: Set a new password" in content


@pytest.mark.parametrize("tls", ["smtps", "starttls"])
def test_a_mail_is_delivered_with_tls_and_a_login(smtp, send, certificate, trusted, tls):
    login = {"authenticator": authenticator, "auth_required": True}
    context = context_of(certificate)
    if tls == "smtps":
        # It does not see TLS that is there from the start, and would warn that AUTH needs it.
        login["auth_required"] = False
        inbox, port = smtp(ssl_context=context, auth_require_tls=False, **login)
        send(f"smtps://anna:p%40ss%20word@localhost:{port}")
    else:
        inbox, port = smtp(tls_context=context, require_starttls=True, **login)
        send(f"smtp://anna:p%40ss%20word@localhost:{port}?starttls=true")
    assert len(inbox.mails) == 1


def test_a_wrong_password_is_an_error(smtp, send, certificate, trusted):
    login = {"authenticator": authenticator, "auth_required": True}
    inbox, port = smtp(tls_context=context_of(certificate), require_starttls=True, **login)
    with pytest.raises(SMTPAuthenticationError):
        send(f"smtp://anna:wrong@localhost:{port}?starttls=true")
    assert inbox.mails == []


def test_a_certificate_that_is_not_trusted_is_an_error(smtp, send, certificate):
    inbox, port = smtp(tls_context=context_of(certificate))
    with pytest.raises(ssl.SSLCertVerificationError):
        send(f"smtp://localhost:{port}?starttls=true")
    assert inbox.mails == []


def test_a_server_without_tls_gets_no_mail_if_tls_is_wanted(smtp, send):
    inbox, port = smtp()
    with pytest.raises(SMTPException):
        send(f"smtp://127.0.0.1:{port}?starttls=true")
    assert inbox.mails == []


def test_a_recipient_that_will_never_be_taken_is_given_up(smtp, send, lines):
    inbox, port = smtp()
    inbox.of_recipient = "550 no such mailbox"
    send(f"smtp://127.0.0.1:{port}")
    assert inbox.mails == []
    assert [line["codes"] for line in lines() if "codes" in line] == [[550]]


def test_a_mail_that_is_refused_for_now_is_an_error(smtp, send):
    inbox, port = smtp()
    inbox.of_recipient = "450 try later"
    with pytest.raises(SMTPRecipientsRefused):
        send(f"smtp://127.0.0.1:{port}")
    inbox.of_recipient, inbox.answer = "250 OK", "451 try later"
    with pytest.raises(SMTPException):
        send(f"smtp://127.0.0.1:{port}")


def test_no_server_is_an_error(send):
    with pytest.raises(ConnectionRefusedError):
        send(f"smtp://127.0.0.1:{_free_port()}")


def test_a_server_that_does_not_respond_is_an_error_in_time(send, monkeypatch):
    monkeypatch.setattr(sending, "TIMEOUT", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(OSError, match="timed out"),
    ):
        send(f"smtp://127.0.0.1:{silent.getsockname()[1]}")


def test_a_mail_that_was_accepted_is_not_sent_again_if_the_connection_then_breaks(send):
    """The server ends without a word after it has taken the mail."""
    server = socket.create_server(("127.0.0.1", 0))
    seen = []

    def serve():
        with closing(server), closing(server.accept()[0]) as connection:
            file = connection.makefile("rwb")
            file.write(b"220 hello\r\n")
            file.flush()
            while line := file.readline():
                seen.append(line.split()[0])
                if line.upper().startswith(b"DATA"):
                    file.write(b"354 go\r\n")
                    file.flush()
                    while file.readline() != b".\r\n":
                        pass
                    file.write(b"250 taken\r\n")
                    file.flush()
                    return
                file.write(b"250 OK\r\n")
                file.flush()

    thread = Thread(target=serve)
    thread.start()
    send(f"smtp://127.0.0.1:{server.getsockname()[1]}")
    thread.join()
    assert b"data" in [name.lower() for name in seen]


def test_a_folder_gets_mail_that_only_this_account_can_read(send, tmp_path, lines):
    folder = tmp_path / "a folder" / "mail"
    send(folder.as_uri())
    time.sleep(0.001)
    send(folder.as_uri())
    paths = sorted(folder.iterdir())
    assert [path.suffix for path in paths] == [".eml", ".eml"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert b"Subject: Set a new password" in paths[0].read_bytes()
    assert [line["file"] for line in lines() if line["message"] == "mail"] == [*map(str, paths)]


def test_memory_keeps_mail(send):
    app = send("memory:")
    [message] = app.extensions["mail"]
    assert message["To"] == TO


def test_without_a_url_nothing_is_sent(make_app):
    with make_app(MAIL_URL=None).app_context(), pytest.raises(sending.NoMailError):
        sending.send("recovery", "en", TO, **NAMES)
