"""The queues: everything that is sent is sent to a queue that the worker's command consumes, by a name it knows."""

import ast

from tests.architecture.source import sources
from worker import app as worker_app
from worker import roles, tasks
from worker.settings import WorkerSettings

SENDING = {"send_task", "apply_async", "delay", "publish"}


def consumed_queues() -> list[str]:
    """What stands behind -Q in the worker's command line (worker/app.py), with names of constants resolved."""
    tree = next(source.tree for source in sources("worker") if source.module == "worker.app")
    for node in ast.walk(tree):
        if isinstance(node, ast.List):
            values = [_value(element) for element in node.elts]
            if "-Q" in values:
                return str(values[values.index("-Q") + 1]).split(",")
    return []


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Constant):
        return node.value
    return getattr(worker_app, node.id, None) if isinstance(node, ast.Name) else None


def _sends() -> list[tuple[str, ast.Call]]:
    """Calls that hand something to the broker. Only worker/ can: Celery and kombu live nowhere else (test_imports)."""
    return [
        (f"{source.path}:{node.lineno}", node)
        for source in sources("worker")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENDING
    ]


def test_the_worker_consumes_the_one_queue() -> None:
    assert consumed_queues() == [worker_app.QUEUE]


def test_everything_is_sent_to_a_consumed_queue() -> None:
    sends = _sends()
    assert sends, "nobody sends anything"
    for where, call in sends:
        queues = [_value(keyword.value) for keyword in call.keywords if keyword.arg == "queue"]
        assert queues, f"{where} names no queue"
        assert set(queues) <= set(consumed_queues()), where


def test_only_the_dispatcher_sends() -> None:
    """Not a stage: publishing to a broker that hangs would hang its work. (The API cannot: it has no client for it.)"""
    assert {where.partition(":")[0] for where, _ in _sends()} == {"worker/dispatch.py"}


def test_every_task_has_the_name_by_which_it_is_sent(monkeypatch: object) -> None:
    settings = WorkerSettings(database_url="postgresql://nowhere/x", blob_root="b", model_root="m")
    application = worker_app.create_app(settings)
    application.loader.import_default_modules()
    application.finalize()
    ours = {name for name in application.tasks if not name.startswith("celery.")}
    assert ours == {worker_app.INFER_TASK, worker_app.CANARY_TASK}
    assert application.conf.task_default_queue == worker_app.QUEUE


def test_tasks_are_one_line_each() -> None:
    tree = next(source.tree for source in sources("worker") if source.module == tasks.__name__)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            code = [line for line in node.body if not isinstance(line, ast.Expr) or isinstance(line.value, ast.Call)]
            assert len(code) == 1, node.name


def test_every_role_has_a_command() -> None:
    for role in roles.ROLES:
        assert roles.command(role)
