"""TLS to the broker: who is believed, who is refused, and that nothing is ever sent without it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client

from headrace.service.broker import connect, ensure_streams
from headrace.service.nats_server import NatsServer
from headrace.service.tls import Tls
from headrace_proto.errors import ConfigError
from tests.service.authority import HOST, Authority
from tests.waiting import until

Starts = Callable[..., NatsServer]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """Another authority, which nobody here believes."""
    return Authority(tmp_path / "stranger")


def secure(server: NatsServer) -> str:
    return server.url.replace("nats://", "tls://")


@asynccontextmanager
async def asking(url: str, tls: Tls | None) -> AsyncIterator[list[str]]:
    """A client that tries to connect; what it hears."""
    heard: list[str] = []
    connecting = asyncio.create_task(connect(url, name="test", tls=tls, on_event=heard.append))
    try:
        yield heard
        assert not connecting.done()
    finally:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)


async def refusal(url: str, tls: Tls | None) -> str:
    """Why the client that tries to connect cannot; an AssertionError if it can."""
    async with asking(url, tls) as heard:
        await until(lambda: bool(heard), "a refusal")
    return heard[0]


async def connected(url: str, tls: Tls) -> Client:
    return await asyncio.wait_for(connect(url, name="test", tls=tls, on_event=lambda text: None), 30)


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_broker_and_client_with_certificates_believe_each_other(
    start_nats: Starts, authority: Authority, scheme: str
) -> None:
    """With both certificates the streams can be used; a URL of nats:// beside certificates means the same."""
    server = start_nats(extra=authority.server(verify=True))
    client = await connected(server.url.replace("nats", scheme, 1), authority.issue("client"))
    await ensure_streams(client.jetstream())
    assert client._transport._io_writer.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[union-attr]
    await client.close()


async def test_the_end_of_a_connection_makes_asyncio_say_nothing(
    start_nats: Starts, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever ends it. nats-py makes its streams anew for TLS without telling them, and then asyncio warns at each end."""
    server = start_nats(extra=authority.server(verify=True))
    for ended_by_us in (True, False):
        client = await connected(secure(server), authority.issue("client"))
        writer = client._transport._io_writer  # type: ignore[union-attr]
        if ended_by_us:
            await client.close()
        else:
            server.kill()
        async with asyncio.timeout(30):
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        await client.close()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


# -- Fault 23: refused, the file named, nothing sent; never plain instead --------------------------------------------


async def test_broker_of_an_unknown_authority_is_refused(
    start_nats: Starts, authority: Authority, stranger: Authority
) -> None:
    """A certificate that somebody else issued is not believed; the message names the file that says whom to believe."""
    server = start_nats(extra=authority.server())
    said = await refusal(secure(server), Tls(ca=stranger.ca))
    assert said.startswith("broker refused: ")
    assert stranger.ca in said
    assert "tls_ca" in said
    assert "tls_ca" in await refusal(secure(server), None)


async def test_client_without_a_certificate_is_told_to_name_one(start_nats: Starts, authority: Authority) -> None:
    """A broker that asks who we are is not left to hang up without a word."""
    said = await refusal(secure(start_nats(extra=authority.server(verify=True))), Tls(ca=authority.ca))
    assert "tls_cert" in said
    assert "tls_key" in said


async def test_client_of_an_unknown_authority_is_told_which_file(
    start_nats: Starts, authority: Authority, stranger: Authority
) -> None:
    """A broker that does not take our certificate: the message names it."""
    server = start_nats(extra=authority.server(verify=True))
    _, cert, key = stranger.issue("client")
    assert str(cert) in await refusal(secure(server), Tls(authority.ca, cert, key))


async def test_client_with_an_expired_certificate_is_told_which_file(start_nats: Starts, authority: Authority) -> None:
    """Certificates live for days where machines renew them: the one that was forgotten is named."""
    server = start_nats(extra=authority.server(verify=True))
    tls = authority.issue("client", expired=True)
    assert str(tls.cert) in await refusal(secure(server), tls)


async def test_expired_broker_is_refused(start_nats: Starts, authority: Authority) -> None:
    """A certificate that has expired is not believed, and the message says so."""
    said = await refusal(secure(start_nats(extra=authority.server(expired=True))), Tls(ca=authority.ca))
    assert "out of date" in said
    assert "renew" in said


@pytest.mark.parametrize("host", ["nats.example.org", "10.0.0.1"])
async def test_broker_with_another_hosts_certificate_is_refused(
    start_nats: Starts, authority: Authority, host: str
) -> None:
    """A certificate of another host is not believed, although its authority is."""
    said = await refusal(secure(start_nats(extra=authority.server(host=host))), Tls(ca=authority.ca))
    assert "another host's" in said


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_plain_broker_gets_nothing(start_nats: Starts, authority: Authority, scheme: str) -> None:
    """A broker without TLS gets no word of a client that was told to use it."""
    said = await refusal(start_nats().url.replace("nats", scheme, 1), Tls(ca=authority.ca))
    assert "no TLS" in said


async def test_word_that_strips_tls_is_not_believed(authority: Authority) -> None:
    """Somebody between client and broker who says that no TLS is needed hears nothing but a hang-up."""
    heard = bytearray()

    async def strip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.15.1", "max_payload": 1 << 20, "tls_required": False, "nonce": "n"}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        heard.extend(await reader.read())
        writer.close()

    async with await asyncio.start_server(strip, HOST) as between:
        port = between.sockets[0].getsockname()[1]
        said = await refusal(f"tls://{HOST}:{port}", Tls(ca=authority.ca))
    assert "no TLS" in said
    assert not heard


async def test_refusals_are_asked_ever_more_slowly(
    start_nats: Starts, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal doubles the pause up to a minute, and is told once."""
    pauses: list[float] = []
    pause = asyncio.sleep

    async def noted(delay: float, *rest: object) -> None:
        pauses.append(delay)
        await pause(0)

    monkeypatch.setattr("headrace.service.secured.asyncio.sleep", noted)
    server = start_nats(extra=authority.server(verify=True))
    async with asking(secure(server), Tls(ca=authority.ca)) as heard:
        for _ in range(4000):  # nats-py has pauses of its own, of 2 s
            if sum(delay > 30 for delay in pauses) >= 2:
                break
            await pause(0.01)
    rests = [delay for delay in pauses if delay >= 0.75]
    assert len([text for text in heard if "refused" in text]) == 1  # giving up may end a connection, and tell that
    assert max(rests) <= 60
    assert sum(delay > 30 for delay in rests) >= 2


async def test_renewed_certificate_needs_no_restart(start_nats: Starts, authority: Authority) -> None:
    """The files are read at each handshake: a client comes back to a restarted broker with its renewed certificate."""
    server = start_nats(extra=authority.server(verify=True))
    tls = authority.issue("client")
    client = await connected(secure(server), tls)
    server.kill()
    await until(lambda: not client.is_connected, "the connection is gone")
    for path in (tls.cert, tls.key):
        Path(str(path)).unlink()
    authority.issue("client")
    server.start()
    await until(lambda: client.is_connected, "the client is back")
    await client.close()


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (Tls(ca="absent.pem"), ["tls_ca", "absent.pem"]),
        (Tls(ca=__file__), ["tls_ca", "no certificate"]),
        (Tls(cert="a.pem"), ["tls_cert", "tls_key", "both"]),
        (Tls(cert=__file__, key=__file__), ["tls_cert", "tls_key"]),
    ],
)
async def test_wrong_file_is_named_at_once(tls: Tls, words: list[str]) -> None:
    """A file that is absent, or holds something else, is an error before any connection."""
    with pytest.raises(ConfigError) as caught:
        await connect("tls://127.0.0.1:1", name="test", tls=tls, on_event=lambda text: None)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("url", ["tls://a:4222,nats://b:4222", "wss://a,ws://b"])
async def test_half_secure_cluster_is_refused(url: str) -> None:
    """One plain server among several would be where everything could be read."""
    with pytest.raises(ConfigError, match="mix"):
        await connect(url, name="test", on_event=lambda text: None)


async def test_wrong_credentials_are_named_and_wait(start_nats: Starts, tmp_path: Path) -> None:
    """A key that the broker does not know: the message names the file, and never what is in it."""
    import nkeys

    keys = [nkeys.from_seed(nkeys.encode_seed(32 * byte, nkeys.PREFIX_BYTE_USER)) for byte in (b"a", b"b")]
    server = start_nats(extra=f"authorization {{ users = [ {{ nkey: {keys[0].public_key.decode()} }} ] }}")
    file = tmp_path / "wrong.nk"
    file.write_bytes(keys[1].seed)
    heard: list[str] = []
    connecting = asyncio.create_task(connect(server.url, name="t", credentials=str(file), on_event=heard.append))
    await until(lambda: bool(heard), "a refusal")
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    assert "wrong.nk" in heard[0]
    assert "credentials" in heard[0]
    assert keys[1].seed.decode() not in heard[0]


async def test_password_in_the_url_is_never_told(start_nats: Starts, caplog: pytest.LogCaptureFixture) -> None:
    """Neither events nor errors show the user and password of a URL."""
    server = start_nats(extra="authorization { user: ann, password: right }")
    url = server.url.replace("//", "//ann:wrong-secret@")
    with caplog.at_level(logging.DEBUG):
        said = await refusal(url, None)
    with pytest.raises(ConfigError) as caught:
        await connect(f"{url},http://bob:other-secret@b", name="test", on_event=lambda text: None)
    for text in (said, caplog.text, str(caught.value)):
        assert "secret" not in text
