FROM docker.io/library/python:3.13-slim-trixie AS base


FROM base AS build

WORKDIR /build
COPY requirements.txt .
# The venv needs no pip of its own: nothing is installed into it later.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes \
        --only-binary :all: -r requirements.txt


FROM base

LABEL org.opencontainers.image.title="Phresh" \
      org.opencontainers.image.description="The REST API of a marketplace for cleaning jobs"

# USER below has the number: for runAsNonRoot, Kubernetes does not accept a name.
RUN useradd --uid 10001 --user-group --no-create-home --no-log-init --shell /usr/sbin/nologin phresh

COPY --from=build /opt/venv /opt/venv

WORKDIR /app
COPY wsgi.py gunicorn.conf.py LICENSE ./
COPY migrations migrations
COPY phresh phresh
# The user can read everything, whatever the umask of the checkout, but not write: compile now.
RUN python -m compileall -q . && chmod -R a+rX .

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000
USER 10001
EXPOSE 8000

# Not urllib: it would send the request to the proxy that http_proxy names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["python", "-c", "\
import http.client, os; \
server = http.client.HTTPConnection('127.0.0.1:' + os.environ['PORT'], timeout=4); \
server.request('GET', '/healthz'); \
raise SystemExit(server.getresponse().status != 200)"]

# Migrations are not applied here: replicas that start together would apply them at the same time.
# The heartbeat files of the workers are in memory: with a slow disk, the workers would look dead.
CMD ["gunicorn", "--config", "gunicorn.conf.py", "--worker-tmp-dir", "/dev/shm", "wsgi:app"]
