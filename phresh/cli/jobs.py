"""The commands for background jobs."""

import click
from flask import current_app

from phresh.cli.database import one, rows
from phresh.jobs import queries

STATES = {"todo": "waiting", "doing": "running", "failed": "failed"}


@click.command()
@click.option(
    "--concurrency", type=click.IntRange(1, 100), default=4, show_default=True, help="Jobs at once."
)
@click.option("--ends-with-stdin", is_flag=True, hidden=True)
def worker(concurrency: int, ends_with_stdin: bool) -> None:
    """Run background jobs, and what is to be done by the clock."""
    from phresh.jobs import worker

    rows(queries.jobs())  # fails with one line where the tables are missing
    try:
        worker.run(
            current_app._get_current_object(),  # type: ignore[attr-defined]
            concurrency=concurrency,
            ends_with_stdin=ends_with_stdin,
        )
    except worker.WorkerError as error:
        raise click.ClickException(str(error)) from None


@click.group(invoke_without_command=True)
@click.pass_context
def jobs(context: click.Context) -> None:
    """List the background jobs that wait, run or have failed."""
    if context.invoked_subcommand is not None:
        return
    for job_id, status, task, attempts, scheduled_at in rows(queries.jobs()):
        since = f", next at {scheduled_at:%Y-%m-%d %H:%M:%S %Z}" if scheduled_at else ""
        click.echo(f"{job_id}  {STATES[status]}  {task}  {attempts} attempts{since}")


@jobs.command()
@click.argument("job_id", type=int)
def retry(job_id: int) -> None:
    """Run a failed job again."""
    one(queries.retried_job(job_id=job_id), "failed job")
    click.echo(f"Job {job_id} waits for the worker.")
