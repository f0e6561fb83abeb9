"""The queries on background jobs, whose tables and functions are procrastinate's."""

from sqlalchemy import Executable, text

from phresh.database.statements import Value, query

SHOWN_MAX = 1_000  # jobs that one command lists


@query
def deferred_job(*, task: Value, arguments: Value) -> Executable:
    """Store a job. Each task has a queue of its own: no worker takes a job that it can't run.

    :param arguments: as JSON text
    """
    store = text("""
        SELECT procrastinate_defer_jobs_v1(ARRAY[CAST(ROW(CAST(:_task AS text),
            CAST(:_task AS text), 0, NULL, NULL, CAST(:_arguments AS jsonb), NULL
        ) AS procrastinate_job_to_defer_v1)])
    """)
    return store.bindparams(task, arguments)


@query
def jobs() -> Executable:
    """Select the jobs that wait, run or have failed, the oldest first."""
    return text(f"""
        SELECT id, status, task_name, attempts, scheduled_at FROM procrastinate_jobs
        WHERE status IN ('todo', 'doing', 'failed') ORDER BY id LIMIT {SHOWN_MAX}
    """)  # noqa: S608 - no value


@query
def retried_job(*, job_id: Value) -> Executable:
    """Put a failed job back to those that wait; no row if there is no such job."""
    retry = text("""
        SELECT procrastinate_retry_job_v2(id, now(), NULL, NULL, NULL) FROM procrastinate_jobs
        WHERE id = CAST(:_job_id AS bigint) AND status = 'failed'
    """)
    return retry.bindparams(job_id)
