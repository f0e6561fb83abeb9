"""Settings: where they are read from, and which values are rejected."""

import re

import pytest
from sqlalchemy import text

from phresh import config, create_app
from phresh.config import ROOT, ConfigError, read_settings, without_secrets
from phresh.database.base import db


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """An environment without settings, and a checkout without ``.env``."""
    for name in config.SettingsSchema().fields:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(config, "ROOT", tmp_path)
    return monkeypatch


def url_of(text):
    return read_settings({"DATABASE_URL": text})["SQLALCHEMY_DATABASE_URI"]


def test_the_defaults():
    settings = read_settings()
    assert (settings["HOST"], settings["PORT"]) == ("127.0.0.1", 8000)
    assert settings["CORS_ORIGINS"] == ["*"]
    assert settings["MAX_CONTENT_LENGTH"] == 65536
    assert settings["SECRET_KEY"] is None
    assert settings["SQLALCHEMY_DATABASE_URI"] is None


def test_the_environment_overrides_the_env_file(environment, tmp_path):
    (tmp_path / ".env").write_text("PORT=1\nHOST=::1\n")
    environment.setenv("PORT", "2")
    settings = read_settings()
    assert (settings["HOST"], settings["PORT"]) == ("::1", 2)


def test_an_empty_variable_counts_as_not_set(environment):
    environment.setenv("PORT", "")
    environment.setenv("POSTGRES_SERVER", "")
    assert read_settings()["PORT"] == 8000
    assert read_settings()["SQLALCHEMY_DATABASE_URI"] is None


def test_settings_passed_in_replace_the_environment(environment):
    environment.setenv("PORT", "2")
    environment.setenv("DATABASE_URL", "nonsense")
    app = create_app({"DATABASE_URL": "postgresql://h/n", "TESTING": True})
    assert (app.config["PORT"], app.testing) == (8000, True)


UNUSED = [
    *(("DATABASE_URL", "postgresql://h/n", f"POSTGRES_{name}") for name in ("PORT", "SERVER")),
    ("POSTGRES_SERVER", "", "POSTGRES_PORT"),
    *(("RATELIMIT_ENABLED", "false", name) for name in config.SWITCHES["RATELIMIT_ENABLED"]),
    *(("DATABASE_LIMITS", "no", name) for name in config.SWITCHES["DATABASE_LIMITS"]),
]


@pytest.mark.parametrize(("setting", "value", "unused"), UNUSED)
def test_a_setting_that_is_not_used_is_not_validated(environment, setting, value, unused):
    environment.setenv(unused, "tcp://10.96.0.12:5432")  # as Kubernetes sets POSTGRES_PORT
    environment.setenv(setting, value)
    settings = read_settings()
    assert settings[unused] == config.SettingsSchema().fields[unused].load_default


@pytest.mark.parametrize("setting", ["POSTGRES_PORT", "LOGIN_WINDOW", "STATEMENT_TIMEOUT"])
def test_a_setting_that_is_used_is_validated(environment, setting):
    environment.setenv("POSTGRES_SERVER", "h")
    environment.setenv(setting, "tcp://10.96.0.12:5432")
    with pytest.raises(ConfigError, match=f"^{setting}: "):
        read_settings()


def test_limits_that_are_not_sent_need_no_order(environment):
    environment.setenv("DATABASE_LIMITS", "false")
    environment.setenv("DATABASE_TIMEOUT", "2")
    environment.setenv("POOL_TIMEOUT", "1")
    assert read_settings()["STATEMENT_TIMEOUT"] == 3


def test_an_env_file_that_cannot_be_read_is_rejected(tmp_path):
    (tmp_path / ".env").write_bytes(b"PORT=\xff")
    with pytest.raises(ConfigError, match=r"/\.env: Can't be read: "):
        read_settings()


ELEVEN_YEARS = str(11 * 365 * 24 * 3600)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PORT", "0"), ("PORT", "65536"), ("PORT", "http"), ("WORKERS", "0")),
        ("POOL_SIZE", "-1"),
        *(("GUEST_POSTING", "perhaps"), ("RATELIMIT_ENABLED", "perhaps")),
        *(("TOKEN_LIFETIME", "0"), ("LOGIN_WINDOW", "0"), ("REGISTRATION_WINDOW", "0")),
        *(("TOKEN_LIFETIME", ELEVEN_YEARS), ("LOGIN_WINDOW", ELEVEN_YEARS)),
        ("REGISTRATION_WINDOW", ELEVEN_YEARS),
        *(("ARGON2_TIME_COST", "0"), ("ARGON2_MEMORY_COST", "7"), ("ARGON2_PARALLELISM", "0")),
        *(("HASHES_AT_ONCE", "0"), ("HASH_TIMEOUT", "0"), ("REGISTRATIONS_PER_ADDRESS", "0")),
        *(("LOGIN_FAILURES_PER_ACCOUNT", "0"), ("LOGIN_FAILURES_PER_ADDRESS", "0")),
        # Beyond what the server, the machine or a column can take; 0.4 ms would be no limit.
        *(
            ("LOCK_TIMEOUT", "0.0004"),
            ("DATABASE_TIMEOUT", "2147484"),
            ("STATEMENT_TIMEOUT", "nan"),
        ),
        *(("LOGIN_FAILURES_PER_ACCOUNT", "2147483648"), ("ARGON2_MEMORY_COST", "99999999")),
        *(("CONNECT_TIMEOUT", "2147484"), ("WORKERS", "10000"), ("POOL_SIZE", "100000")),
        *(("HOST", "http://localhost"), ("HOST", "localhost:8000"), ("HOST", "[::1]")),
        *(("HOST", "1.2.3.400"), ("HOST", "a..b"), ("HOST", "a" * 64)),
    ],
)
def test_an_invalid_value_is_rejected_with_its_name(environment, name, value):
    environment.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: "):
        read_settings()


def test_postgres_settings_are_combined_into_a_url():
    url = read_settings({"POSTGRES_SERVER": "h", "POSTGRES_PASSWORD": "p@/:"})[
        "SQLALCHEMY_DATABASE_URI"
    ]
    assert url.render_as_string(hide_password=False) == (
        "postgresql+psycopg2://postgres:p%40%2F%3A@h:5432/phresh"
    )


def test_database_url_overrides_the_postgres_settings():
    settings = read_settings({"POSTGRES_SERVER": "h", "DATABASE_URL": "postgresql://other/n"})
    assert settings["SQLALCHEMY_DATABASE_URI"].host == "other"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_postgresql_scheme_uses_psycopg2(scheme):
    url = url_of(f"{scheme}://u:p@h:1/n?sslmode=require")
    assert url.drivername == "postgresql+psycopg2"
    assert (url.username, url.password, url.host, url.port) == ("u", "p", "h", 1)
    assert url.query == {"sslmode": "require"}


def test_a_comma_in_the_password_does_not_start_a_second_host():
    url = url_of("postgresql://u:top,secret@h:1/n")
    assert (url.password, url.host, url.port) == ("top,secret", "h", 1)


def test_secrets_in_a_url_are_hidden():
    url = url_of("postgresql://u:topsecret@h/n?password=topsecret&sslpassword=topsecret")
    assert "topsecret" not in without_secrets(url)
    assert "u:***@h/n" in without_secrets(url)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u@h1:5432,h2:5433/n",
        "postgresql://u@h1:5432,h2:5433/n?target_session_attrs=read-write",
        "postgresql://u@/n?host=h1:5432&host=h2:5433",
        "postgresql://h1:5432,h2:5433/n",
    ],
)
def test_several_hosts_are_passed_to_libpq(text):
    url = url_of(text)
    _, parameters = url.get_dialect()().create_connect_args(url)
    assert (parameters["host"], parameters["port"]) == ("h1,h2", "5432,5433")
    assert parameters["dbname"] == "n"


@pytest.mark.parametrize(
    "text",
    [
        *("postgresql://u@h1:5432,h2:x/n", "postgresql://h/n?port=x"),
        *("postgresql://h/n?host=a&host=b&port=1,2,3", "postgresql://u@[::1]:1,[::2]:2/n"),
        *("nonsense", "mysql://h/n", "sqlite://", "postgresql://h:port/n", "postgresql:h"),
        *("postgresql+asyncpg://h/n", "postgresql+nodriver://h/n", "cockroachdb://h/n"),
    ],
)
def test_an_unusable_url_is_rejected_without_showing_it(text):
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: Not a PostgreSQL URL") as raised:
        url_of(text)
    assert text not in str(raised.value)


@pytest.mark.parametrize(("query", "name"), [("", "phresh"), ("application_name=mine", "mine")])
def test_url_parameters_override_the_defaults(database_url, query, name):
    url = f"{database_url}{'&' if '?' in database_url else '?'}{query}"
    with create_app({"DATABASE_URL": url}).app_context():
        with db.engine.connect() as connection:
            assert connection.scalar(text("SHOW application_name")) == name
        db.engine.dispose()


def test_the_env_example_and_the_docs_list_every_setting():
    names = set(config.SettingsSchema().fields)
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^#?([A-Z0-9_]+)=", example, re.MULTILINE)) == names
    assert re.findall(r"^(?:SECRET_KEY|POSTGRES_PASSWORD)=(.*)$", example, re.MULTILINE) == ["", ""]
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert set(re.findall(r"^\| `([A-Z0-9_]+)` \|", page, re.MULTILINE)) == names


@pytest.mark.parametrize(
    "secret", ["x" * 31, "supersecret", "CHANGEME", "changeme" * 4, "SuperSecret" * 3]
)
def test_a_weak_secret_is_rejected_with_a_command_that_makes_one(environment, secret):
    environment.setenv("SECRET_KEY", secret)
    with pytest.raises(ConfigError, match=r"^SECRET_KEY: .* python3 -c") as raised:
        create_app()
    assert secret not in raised.value.message


@pytest.mark.parametrize("secret", ["x" * 32, "é" * 16])
def test_a_secret_of_32_bytes_is_accepted(environment, secret):
    environment.setenv("SECRET_KEY", secret)
    assert read_settings()["SECRET_KEY"] == secret


def test_argon2_needs_8_kib_of_memory_per_lane(environment):
    environment.setenv("ARGON2_MEMORY_COST", "15")
    environment.setenv("ARGON2_PARALLELISM", "2")
    with pytest.raises(ConfigError, match=r"^ARGON2_MEMORY_COST: "):
        read_settings()


def test_an_app_without_any_database_is_rejected(environment):
    environment.setattr("phresh.database.embedded.PACKAGE", "not-installed")
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        create_app()


@pytest.mark.parametrize(
    ("pool", "asked", "expected"),
    [("10", "", 2), ("4", "", 2), ("3", "", 1), ("1", "", 1), ("3", "2", 2), ("1", "1", 1)],
)
def test_searches_leave_connections_for_other_requests(environment, pool, asked, expected):
    environment.setenv("POOL_SIZE", pool)
    environment.setenv("SEARCHES_AT_ONCE", asked)
    assert read_settings()["SEARCHES_AT_ONCE"] == expected


@pytest.mark.parametrize(("pool", "asked"), [("10", "10"), ("10", "0"), ("1", "2")])
def test_searches_cannot_take_every_connection(environment, pool, asked):
    environment.setenv("POOL_SIZE", pool)
    environment.setenv("SEARCHES_AT_ONCE", asked)
    with pytest.raises(ConfigError, match=r"^SEARCHES_AT_ONCE: "):
        read_settings()
