"""How far a training is, from the events that it tells: rate, time to go, losses. Asks nobody, prints nothing."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.live import span

Event = Mapping[str, Any]
KEPT_EPOCHS: Final = 500
_NEW: Final = 0.1  # weight of the newest step in the running means


class Progress:
    """The state of one training as people want to see it. `before`: what an earlier trainer of the run left."""

    def __init__(self, before: Mapping[str, Any] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state: dict[str, Any] = {**(before or {}), "rate": None, "eta_s": None}
        self._history: list[dict[str, Any]] = list(self._state.get("history", ()))
        self._step_s: float | None = None
        self._validation_s = 0.0
        self._losses: list[float] = []
        self._at: float | None = None

    def hear(self, event: Event) -> None:
        """Take an event in."""
        name, now = event["event"], self._clock()
        if name == "started":
            self._state |= {key: event[key] for key in ("step", "epochs", "steps_per_epoch", "pictures", "batch")}
            begun = event["step"] // max(1, event["steps_per_epoch"])
            self._history = [epoch for epoch in self._history if epoch["epoch"] < begun]
        elif name == "step":
            if self._at is not None:
                took = now - self._at
                self._step_s = took if self._step_s is None else (1 - _NEW) * self._step_s + _NEW * took
            self._losses.append(event["loss"])
            old = self._state.get("loss")
            loss = event["loss"] if old is None else (1 - _NEW) * old + _NEW * event["loss"]
            self._state |= {"epoch": event["epoch"], "step": event["step"], "lr": event["lr"], "loss": loss}
        elif name == "epoch":
            if self._at is not None:
                self._validation_s = now - self._at
            mean = sum(self._losses) / len(self._losses) if self._losses else None
            self._history.append({"epoch": event["epoch"], "loss": mean, "metrics": dict(event["metrics"])})
            del self._history[:-KEPT_EPOCHS]
            self._losses = []
        elif name == "checkpoint":
            self._state["checkpoint"] = event["step"]
        # What a validation or a checkpoint takes is no step's.
        self._at = now if name == "step" else None

    def snapshot(self) -> dict[str, Any]:
        """As JSON values: epoch (from 0), epochs, step, steps_per_epoch, pictures, batch (per step), loss (running
        mean), lr, rate (pictures a second), eta_s, checkpoint (its step), history."""
        state = self._state | {"history": list(self._history)}
        if self._step_s:
            state["rate"] = round(state.get("batch", 0) / self._step_s, 3)
            state["eta_s"] = round(self._to_go(), 1)
        return state

    def _to_go(self) -> float:
        epochs, steps = self._state.get("epochs", 0), self._state.get("steps_per_epoch", 0)
        missing: int = max(0, epochs * steps - self._state.get("step", 0))
        unvalidated: int = max(0, epochs - len(self._history))
        return missing * (self._step_s or 0.0) + unvalidated * self._validation_s


def words(event: Event) -> str:
    """An event as a line for people."""
    match event:
        case {"event": "started", "step": step, "epochs": epochs, "steps_per_epoch": steps, "pictures": pictures}:
            begun = f"goes on at step {step} of {epochs * steps}" if step else f"starts: {epochs * steps} steps"
            return f"{begun}, {steps} an epoch, {pictures} pictures in batches of {event['batch']}"
        case {"event": "epoch", "epoch": epoch, "epochs": epochs, "metrics": metrics}:
            figures = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            return f"epoch {epoch + 1} of {epochs}: {figures or 'not validated'}"
        case {"event": "checkpoint", "step": step}:
            return f"checkpoint at step {step}"
        case {"event": "out_of_memory", "batch": batch, "accumulation": pieces}:
            return f"out of memory: goes on with {batch} pictures at once, {pieces} times a step"
        case {"event": "failed", "code": code, "detail": detail}:
            return f"failed: {detail} ({code})"
    about = ", ".join(f"{key} {value}" for key, value in event.items() if key != "event")
    return str(event["event"]).replace("_", " ") + (f": {about}" if about else "")


def status(live: Mapping[str, Any], *, going: bool = True) -> str:
    """One line of where a training is: epoch, step, loss, and of one that is going, rate and time to go."""
    if "step" not in live or not live.get("steps_per_epoch"):
        return "nothing told yet"
    epochs, steps = live["epochs"], live["steps_per_epoch"]
    parts = [f"epoch {min(epochs, live['step'] // steps + 1)} of {epochs}", f"step {live['step']} of {epochs * steps}"]
    if live.get("loss") is not None:
        parts.append(f"loss {live['loss']:.3f}")
    if going and live.get("rate"):
        parts.append(f"{live['rate']:.1f} images/s")
    if going and live.get("eta_s") is not None:
        parts.append(f"{span(live['eta_s'])} to go")
    return ", ".join(parts)
