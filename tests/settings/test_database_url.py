"""The parameters of DATABASE_URL: libpq's own names and values."""

import pytest

from phresh.config import ConfigError, read_settings

GOOD = [
    *("sslmode=require", "sslmode=require&sslnegotiation=direct", "connect_timeout=5"),
    *("keepalives_idle=3&keepalives_interval=1&tcp_user_timeout=3000", "options=-c%20geqo%3Doff"),
    *("target_session_attrs=read-write", "client_encoding=utf8", "hostaddr=10.0.0.1"),
    *("gssencmode=require", "application_name=mine", "channel_binding=prefer"),
]
BAD = {
    "foo=1": "There is no parameter foo.",
    "ssl=true": "There is no parameter ssl.",
    "Sslmode=require": "There is no parameter Sslmode.",
    "pool_size=5": "There is no parameter pool_size.",
    "async=1": "There is no parameter async.",
    "dsn=x": "There is no parameter dsn.",
    "cursor_factory=x": "There is no parameter cursor_factory.",
    "top%22secret=1": "There is no parameter of this name.",
    "sslmode=topsecret": "libpq does not accept its parameters: invalid sslmode value.",
    "channel_binding=x": "libpq does not accept its parameters: invalid channel_binding value.",
    "gssencmode=x": "libpq does not accept its parameters: invalid gssencmode value.",
    "sslmode=prefer&sslnegotiation=direct": "libpq does not accept its parameters: weak sslmode",
    "service=nowhere": "libpq does not accept its parameters: definition of service not found.",
    "connect_timeout=abc": "The parameter connect_timeout must be a whole number.",
    "keepalives_idle=2.5": "The parameter keepalives_idle must be a whole number.",
    "tcp_user_timeout=99999999999": "The parameter tcp_user_timeout must be a whole number.",
    "client_encoding=latin1": "The parameter client_encoding must be utf8",
    "target_session_attrs=standby": "The parameter target_session_attrs must be any",
    "replication=database": "The parameter replication must be false",
    "application_name=a&application_name=b": "The parameter application_name must not be repeated.",
    "hostaddr=topsecret": "The parameter hostaddr must be IP addresses.",
    "hostaddr=10.0.0.1,10.0.0.2": "The parameter hostaddr needs an address for each host.",
}


def read(query):
    url = f"postgresql://anna:topsecret@h/n?{query}"
    return read_settings({"DATABASE_URL": url})["SQLALCHEMY_DATABASE_URI"]


@pytest.mark.parametrize("query", GOOD)
def test_a_parameter_of_libpq_is_accepted(query):
    assert len(read(query).query) == query.count("=")


@pytest.mark.parametrize("query", BAD)
def test_a_parameter_that_cannot_work_is_rejected_by_name_without_its_value(query):
    with pytest.raises(ConfigError) as raised:
        read(query)
    message = raised.value.message
    assert message.startswith(f"DATABASE_URL: {BAD[query]}")
    assert "topsecret" not in message.replace("sslmode value", "")
    assert message.isprintable()


def test_the_environment_of_libpq_does_not_matter(monkeypatch):
    """It must not connect while settings are read, nor reject a good URL."""
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setenv("PGGSSENCMODE", "require")
    assert read("sslmode=disable").host == "h"


def test_a_url_of_a_service_and_one_of_several_hosts_are_accepted():
    several = "postgresql://u@h1:1,h2:2/n?hostaddr=10.0.0.1,10.0.0.2"
    for url in (several, "postgresql:///n?host=/var/run", "  postgresql://h/n\n"):
        assert read_settings({"DATABASE_URL": url})["SQLALCHEMY_DATABASE_URI"].database == "n"


@pytest.mark.parametrize("server", ["h:5432", "http://h", "h/n", "h n", "u@h", "h1,h2:1"])
def test_a_server_that_is_no_host_is_rejected(server):
    with pytest.raises(ConfigError, match=r"^POSTGRES_SERVER: The host must be a name"):
        read_settings({"POSTGRES_SERVER": server})


@pytest.mark.parametrize("server", ["h", "10.0.0.1", "::1", "/var/run", "h1,h2"])
def test_a_server_is_a_name_an_address_or_a_folder(server):
    assert read_settings({"POSTGRES_SERVER": server})["SQLALCHEMY_DATABASE_URI"].host == server
