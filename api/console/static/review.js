/* The review pages by keyboard, and pictures that clear in place. Without it the same forms do the same. */
"use strict";

const move = document.getElementById("move");
const grid = document.getElementById("grid");
const picks = grid ? [...grid.querySelectorAll("input[type=checkbox]")] : [];
const codes = document.getElementById("codes");
const body = document.body;
let choosing = false;
let anchor = null;

const veils = new Map(); // picture → its veiled and its clear address

/* Show these pictures clear, or veiled again. Each is asked for (and counted) once. */
async function unveil(pictures, size) {
  const veiled = pictures.filter((picture) => !picture.dataset.unveiled);
  if (!veiled.length) {
    for (const picture of pictures) {
      picture.src = veils.get(picture).veiled;
      delete picture.dataset.unveiled;
    }
    return false;
  }
  const unknown = veiled.filter((picture) => !veils.has(picture));
  if (unknown.length) {
    const said = await tagmill.post("/console/pictures/clear", { items: unknown.map((p) => p.dataset.item), size });
    for (const picture of unknown) veils.set(picture, { veiled: picture.src, clear: said.pictures[picture.dataset.item] });
  }
  for (const picture of veiled) {
    picture.src = veils.get(picture).clear;
    picture.dataset.unveiled = "true";
    picture.alt = picture.alt.replace(", veiled", "");
  }
  return true;
}

async function toggle(button, pictures) {
  const there = pictures.length ? pictures : [...document.querySelectorAll(`${button.dataset.unveil} img[data-item]`)];
  try {
    const clear = await unveil(there, button.dataset.size);
    if (pictures.length) return;
    button.setAttribute("aria-pressed", String(clear));
    button.querySelector("span").textContent = clear ? "Veil again" : "Show clear";
  } catch (error) {
    tagmill.say(error.message, "bad");
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-unveil]");
  if (!button) return;
  event.preventDefault();
  toggle(button, []);
});

/* What a key of the grid is about: what is chosen, else the picture in focus. */
const focused = () => (picks.includes(document.activeElement) ? document.activeElement : null);
const picked = () => picks.filter((pick) => pick.checked);

function count() {
  const place = document.querySelector("[data-count]");
  if (place) place.textContent = String(picked().length);
}

function choose(from, to) {
  const [low, high] = [picks.indexOf(from), picks.indexOf(to)].sort((a, b) => a - b);
  for (const pick of picks.slice(low, high + 1)) pick.checked = true;
  count();
}

function step(key, extend) {
  const now = focused();
  if (!now) return picks[0]?.focus();
  const columns = picks.filter((pick) => pick.closest("li").offsetTop === picks[0].closest("li").offsetTop).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const next = picks[picks.indexOf(now) + by];
  if (!next) return;
  next.focus();
  next.closest("li").scrollIntoView({ block: "nearest" });
  if (extend) choose(now, next);
}

function press(key) {
  const button = document.querySelector(`button[data-key="${key}"]`);
  if (!button || button.disabled) return;
  if (grid && !picked().length && focused()) focused().checked = true;
  move.requestSubmit(button);
}

/* r, then the digit of the reason. */
function startChoosing() {
  choosing = true;
  body.classList.add("choosing");
  codes.scrollIntoView({ block: "center" });
  if (codes.tagName === "SELECT") codes.focus();
}

function stopChoosing() {
  choosing = false;
  body.classList.remove("choosing");
}

function reason(number) {
  if (codes.tagName === "SELECT") {
    if (!codes.options[number]) return;
    codes.selectedIndex = number;
  } else {
    const radio = codes.querySelectorAll("input[type=radio]")[number - 1];
    if (!radio) return;
    radio.checked = true;
  }
  stopChoosing();
  press("r");
}

const hasReason = () =>
  codes.tagName === "SELECT" ? codes.value !== "" : Boolean(codes.querySelector("input:checked") || codes.querySelector("[name=own_code]").value);

const keys = {
  a: () => press("a"),
  r: () => (hasReason() ? press("r") : startChoosing()),
  e: () => press("e"),
  s: () => press("s"),
  u: () => document.getElementById("undo")?.requestSubmit(),
  c: () => document.getElementById("f-comment")?.focus(),
  b: () => {
    const button = document.querySelector("[data-unveil]");
    const about = picked().length ? picked() : focused() ? [focused()] : [];
    if (button) toggle(button, about.map((pick) => pick.closest("li").querySelector("img[data-item]")));
  },
  n: () => {
    const near = [...document.querySelectorAll("#near input")];
    const all = near.every((each) => each.checked);
    for (const each of near) each.checked = !all;
    document.getElementById("near")?.scrollIntoView({ block: "center" });
  },
  "*": () => {
    const all = picked().length === picks.length;
    for (const pick of picks) pick.checked = !all;
    count();
  },
  "?": () => document.getElementById("keys")?.togglePopover(),
};

const typing = (element) => element.matches("textarea, select, input:not([type=checkbox]):not([type=radio])");

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (typing(event.target)) event.target.blur();
    return stopChoosing();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (choosing && /^[1-9]$/.test(event.key)) return reason(Number(event.key));
  if (event.key.startsWith("Arrow")) {
    const link = document.querySelector(`a[data-key="${event.key}"]`);
    if (grid) step(event.key, event.shiftKey);
    else if (link) link.click();
    if (grid || link) event.preventDefault();
    return;
  }
  if (keys[event.key] && move) {
    event.preventDefault();
    if (event.key !== "r") stopChoosing();
    keys[event.key]();
  } else if (event.key === "u") {
    keys.u();
  }
});

grid?.addEventListener("click", (event) => {
  const pick = event.target.closest("li")?.querySelector("input[type=checkbox]");
  if (pick && event.target === pick) {
    if (event.shiftKey && anchor) choose(anchor, pick);
    anchor = pick;
  }
});
grid?.addEventListener("change", count);

/* Reject without a reason asks for one; the reason that is taken then is enough. */
move?.addEventListener("submit", (event) => {
  if (event.submitter?.dataset.key !== "r" || hasReason()) return;
  event.preventDefault();
  startChoosing();
});
codes?.addEventListener("change", (event) => {
  if (!choosing || event.target.name !== "code" || !hasReason()) return;
  stopChoosing();
  press("r");
});
if (picks.length) picks[0].focus({ preventScroll: true });
