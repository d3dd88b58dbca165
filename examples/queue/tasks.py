"""A Celery application: a task that takes two seconds, sent once a second by the scheduler."""

from __future__ import annotations

import os
import time

from celery import Celery

app = Celery("tasks", broker=f"redis://127.0.0.1:{os.environ.get('REDIS_PORT', '6379')}/0")
app.conf.beat_schedule = {"work": {"task": "tasks.work", "schedule": 1.0}}
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 1  # what a stopping consumer has not begun stays in the queue
app.conf.task_acks_late = True


@app.task(name="tasks.work", bind=True, ignore_result=True)  # type: ignore[untyped-decorator] # celery has no types
def work(self) -> None:  # type: ignore[no-untyped-def] # the type of `self` is celery's
    identity = self.request.id[:8]
    print(f"task {identity} begun", flush=True)
    time.sleep(2)
    print(f"task {identity} done", flush=True)
